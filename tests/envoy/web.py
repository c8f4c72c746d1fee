"""gRPC-Web by hand: one HTTP request and its answer, as browsers have them."""

import base64
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx

BINARY: Final = "application/grpc-web+proto"
TEXT: Final = "application/grpc-web-text"
_TRAILER: Final = 0x80


def frame(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


def frames(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        kind, length = struct.unpack(">BI", body[:5])
        yield kind, body[5 : 5 + length]
        body = body[5 + length :]


async def call(
    http: httpx.AsyncClient,
    path: str,
    request: Any,
    response: type[Any],
    *,
    kind: str = BINARY,
    headers: Mapping[str, str] = {},
) -> tuple[list[Any], dict[str, str]]:
    """What it answers, and how it ended: headers where there was no answer."""
    sent = frame(request)
    answer = await http.post(
        path,
        content=base64.b64encode(sent) if kind == TEXT else sent,
        headers={"content-type": kind, "accept": kind, "x-grpc-web": "1", **headers},
    )
    assert answer.status_code == 200
    if "grpc-status" in answer.headers:
        return [], dict(answer.headers)
    body = unpadded(answer.content) if kind == TEXT else answer.content
    parts = [*frames(body)]
    (trailer,) = (data for which, data in parts if which & _TRAILER)
    ended = dict(line.split(":", 1) for line in trailer.decode().strip().split("\r\n"))
    return [response.FromString(data) for which, data in parts if not which], ended


def unpadded(text: bytes) -> bytes:
    """Pieces of base64, each with its own padding."""
    found, start = b"", 0
    while start < len(text):
        found += base64.b64decode(text[start : start + 4])
        start += 4
    return found
