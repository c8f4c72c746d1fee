"""The OpenAPI document of these routes. scripts/gen_openapi.py writes it."""

import hashlib
from pathlib import Path
from typing import Final

from gateway.rest.exchange import JSON, Exchange
from gateway.rest.transcode import is_known

PATH: Final = "/openapi.json"
FILE: Final = Path(__file__).with_name("openapi.json")


class Document:
    def __init__(self) -> None:
        self._text = FILE.read_bytes()
        self._etag = hashlib.sha256(self._text).hexdigest()[:32]

    async def answer(self, exchange: Exchange) -> None:
        headers = [("etag", f'"{self._etag}"')]
        if is_known(exchange, self._etag):
            await exchange.begin(304, headers)
            await exchange.end()
            return
        length = str(len(self._text))
        headers += [("content-type", JSON), ("content-length", length)]
        await exchange.begin(200, headers)
        await exchange.end(self._text)
