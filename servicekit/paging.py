"""Page tokens: opaque, signed, and good for one list of one tenant only."""

import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from google.protobuf.message import Message

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit import calls
from servicekit.errors import InvalidArgument

_KEY_SIZE: Final = 32
_SIGNATURE_SIZE: Final = 16


class PageTokenInvalid(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_PAGE_TOKEN_INVALID


@dataclass(frozen=True, slots=True)
class Page:
    """What part of a list to answer."""

    size: int
    """How many at most."""

    after: str
    """The last key of the page before; empty at the start."""


class PageTokens:
    """Makes and reads the tokens of one server."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def load(cls, path: Path) -> Self:
        """Take the key from a file, made at the first start, so that tokens survive a restart. A
        part of one, which a loss of power may leave, is none: everybody could sign with it."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path, os.link)  # Never replaces the key of another process.
        if path.stat().st_size != _KEY_SIZE:
            _make(path, os.replace)
        return cls(path.read_bytes())

    def page(self, request: Any, *, default: int, maximum: int) -> Page:
        """Raises `InvalidArgument` for a negative size, `PageTokenInvalid` for a bad token."""
        if request.page_size < 0:
            raise InvalidArgument("page_size", "negative")
        size = min(request.page_size or default, maximum)
        return Page(size, self._open(request) if request.page_token else "")

    def next(self, request: Message, *, after: str) -> str:
        """The token for the page of the same list that begins after the key `after`."""
        data = after.encode()
        return base64.urlsafe_b64encode(self._sign(request, data) + data).decode().rstrip("=")

    def _open(self, request: Any) -> str:
        token: str = request.page_token
        try:
            packed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            packed = b""
        signature, data = packed[:_SIGNATURE_SIZE], packed[_SIGNATURE_SIZE:]
        if not hmac.compare_digest(signature, self._sign(request, data)):
            raise PageTokenInvalid("page_token", "not a token of this list")
        return data.decode()

    def _sign(self, request: Message, data: bytes) -> bytes:
        """Covers the list: the request without the page, and the tenant that asks."""
        bare: Any = type(request)()
        bare.CopyFrom(request)
        bare.ClearField("page_token")
        bare.ClearField("page_size")
        signature = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (
            request.DESCRIPTOR.full_name.encode(),
            calls.current().identity.tenant.encode(),
            bare.SerializeToString(deterministic=True),
            data,
        ):
            signature.update(len(part).to_bytes(8, "big") + part)
        return signature.digest()[:_SIGNATURE_SIZE]


def _make(path: Path, put: Callable[[Path, Path], None]) -> None:
    fresh = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(_KEY_SIZE))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            put(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
