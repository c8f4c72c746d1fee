"""The public keys of an issuer of tokens: out of a file, or fetched now and then."""

import asyncio
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from ssl import SSLContext
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from servicekit.config import ConfigError
from servicekit.errors import Unavailable

_log = logging.getLogger(__name__)

ALGORITHMS: Final = frozenset(
    {
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA"),
    }
)
"""Asymmetric ones only: who can check a token cannot make one."""

_LARGEST: Final = 1 << 20
_MOST: Final = 100
_SHORTEST_RSA: Final = 2048
_DISCOVERY: Final = "/.well-known/openid-configuration"
_TIMEOUT: Final = 5.0
_RETRY: Final = 5.0
"""Seconds between two attempts while none are known."""


class Keys(Protocol):
    """Those of one issuer."""

    async def find(self, kid: str | None) -> jwt.PyJWK | None:
        """The one of this id; without one the only key there is. None: there is none. Raises
        `Unavailable` when none are known."""
        ...

    @property
    def generation(self) -> int:
        """Another one whenever the keys have changed. To be looked at before each `find`."""
        ...


class KeySet:
    def __init__(self) -> None:
        self._keys: tuple[tuple[str | None, jwt.PyJWK], ...] = ()
        self.generation = 0

    def replace(self, text: bytes) -> None:
        """Raises `ValueError` if it is no JWKS."""
        self._keys = tuple(_usable(text))
        self.generation += 1

    def find(self, kid: str | None) -> jwt.PyJWK | None:
        found = [key for name, key in self._keys if kid is None or name == kid]
        return found[0] if len(found) == 1 else None


class FileKeys:
    """Of a JWKS in a file, which is read again when it changes. What cannot be read leaves the
    keys from before."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError` if it cannot be used now."""
        self._path = path
        self._set = KeySet()
        self._seen: tuple[int, ...] = ()
        try:
            self._read()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: no JWKS: {error}") from None

    @property
    def generation(self) -> int:
        try:
            self._read()
        except (OSError, ValueError) as error:
            _log.error("the keys from before are kept: %s: %s", self._path, error)
        return self._set.generation

    async def find(self, kid: str | None) -> jwt.PyJWK | None:
        return self._set.find(kid)

    def _read(self) -> None:
        found = self._path.stat()
        seen = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
        if seen != self._seen:
            with self._path.open("rb") as file:
                text = file.read(_LARGEST)
            self._seen = seen
            self._set.replace(text)


class FetchedKeys:
    """Those that the issuer publishes, by OpenID Connect Discovery.

    They are fetched in the background, never for one call; for a key that is not among them at
    most once in `unknown`, and a call waits no longer than `patience` for that. When the issuer
    is away the ones from before count for `stale`.
    """

    def __init__(
        self,
        issuer: str,
        context: SSLContext | None = None,
        *,
        refresh: timedelta = timedelta(minutes=5),
        unknown: timedelta = timedelta(minutes=1),
        stale: timedelta = timedelta(hours=24),
        patience: timedelta = timedelta(seconds=3),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._context = context
        self._refresh = refresh.total_seconds()
        self._unknown = unknown.total_seconds()
        self._stale = stale.total_seconds()
        self._patience = patience.total_seconds()
        self._now = now
        self._set = KeySet()
        self._fetched: float | None = None
        self._asked: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Fetch in the background while the block runs."""
        task = asyncio.create_task(self._repeat())
        try:
            yield
        finally:
            pending = [each for each in (task, self._fetching) if each]
            for each in pending:
                each.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    @property
    def generation(self) -> int:
        return self._set.generation if self._known else -1

    async def find(self, kid: str | None) -> jwt.PyJWK | None:
        found = self._set.find(kid) if self._known else None
        if found is None and (self._fetching or self._may_ask()):
            await self._wait()
            found = self._set.find(kid) if self._known else None
        if not self._known:
            raise Unavailable(
                "the keys of the issuer of tokens cannot be had",
                service="issuer",
                retry_after=timedelta(seconds=_RETRY),
            )
        return found

    @property
    def _known(self) -> bool:
        return self._fetched is not None and self._now() - self._fetched < self._stale

    def _may_ask(self) -> bool:
        pause = self._unknown if self._known else _RETRY
        return self._asked is None or self._now() - self._asked >= pause

    async def _repeat(self) -> None:
        while True:
            await self._wait()
            failed = self._unknown if self._known else _RETRY
            await asyncio.sleep(self._refresh if self._fetched == self._asked else failed)

    async def _wait(self) -> None:
        """Until the one fetch that is under way, or begins now, is over. Never long."""
        if self._fetching is None:
            self._asked = self._now()
            self._fetching = asyncio.create_task(self._fetch(self._asked))
        await asyncio.wait([self._fetching], timeout=self._patience)

    async def _fetch(self, began: float) -> None:
        try:
            self._set.replace(await asyncio.to_thread(self._download))
            self._fetched = began
        except (OSError, ValueError, HTTPException) as error:
            _log.error("the keys of %s cannot be fetched: %s", self._issuer, error)
        finally:
            self._fetching = None

    def _download(self) -> bytes:
        about = json.loads(self._get(self._issuer.rstrip("/") + _DISCOVERY))
        if not isinstance(about, dict) or about.get("issuer") != self._issuer:
            raise ValueError("what it says of itself is of another issuer")
        where = about.get("jwks_uri")
        if not isinstance(where, str) or not is_safe(where):
            raise ValueError("it names no https address of its keys")
        return self._get(where)

    def _get(self, url: str) -> bytes:
        opener = urllib.request.build_opener(
            _NoRedirect, urllib.request.HTTPSHandler(context=self._context)
        )
        with opener.open(url, timeout=_TIMEOUT) as answer:
            until = time.monotonic() + _TIMEOUT  # The other limit is for each part of it.
            body = bytearray()
            while part := answer.read1(_LARGEST):
                body += part
                if len(body) > _LARGEST or time.monotonic() > until:
                    raise ValueError("it says too much, or too slowly")
            return bytes(body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def is_safe(url: str) -> bool:
    """Whether nobody on the way can change what comes from there: https, or this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return bool(host)
        return parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False


def _usable(text: bytes) -> list[tuple[str | None, jwt.PyJWK]]:
    """The keys that check signatures, by id; others are left out. Raises `ValueError`."""
    found = json.loads(text)
    entries = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(entries, list) or len(entries) > _MOST:
        raise ValueError("no list of keys")
    keys = ((each, _key(each)) for each in entries if isinstance(each, dict))
    return [(each.get("kid"), key) for each, key in keys if key]


def _key(entry: Mapping[str, Any]) -> jwt.PyJWK | None:
    if entry.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK(dict(entry))
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if key.algorithm_name not in ALGORITHMS:
        return None
    if isinstance(key.key, rsa.RSAPublicKey) and key.key.key_size < _SHORTEST_RSA:
        return None
    return key if hasattr(key.key, "public_bytes") else None  # A private one has no business here.
