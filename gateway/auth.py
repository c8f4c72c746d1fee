"""Who a caller from outside is."""

import hmac
import logging
import os
import stat
from pathlib import Path
from typing import Final

from cove.options.v1.options_pb2 import Role
from servicekit.config import ConfigError
from servicekit.errors import Unauthenticated
from servicekit.identity import Caller, Identity

_log = logging.getLogger(__name__)

TENANT: Final = "default"
"""The one that there is."""
_ADMIN: Final = Identity("admin", TENANT, Role.ROLE_ADMIN)
_ANYONE: Final = Identity("anonymous", TENANT, Role.ROLE_ADMIN)


class TokenAuthenticator:
    """Lets in who shows the token in the file: `authorization: Bearer <token>`.

    The file is read again when it changes, so that a token can be replaced while
    callers are served. A file that others can read lets nobody in.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._token = b""

    def check(self) -> None:
        """Raises `ConfigError` if the file is there and can let nobody in."""
        try:
            _read(self._path)
        except FileNotFoundError:
            _log.warning("no caller is let in until there is %s", self._path)
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot be read: {error.strerror}") from None

    async def authenticate(self, caller: Caller) -> Identity:
        scheme, _, shown = caller.metadata.get("authorization", "").partition(" ")
        token = self._current()
        matches = hmac.compare_digest(shown.strip().encode(), token)
        if scheme.lower() != "bearer" or not token or not matches:
            raise Unauthenticated("no valid token")
        return _ADMIN

    def _current(self) -> bytes:
        """The token in the file; empty when that cannot be used."""
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
            if seen != self._seen:
                self._token, self._seen = b"", seen
                self._token = _read(self._path)
        except (OSError, ConfigError) as error:
            _log.error("no caller is let in: %s", error)
            self._token = b""
        return self._token


class NoAuthenticator:
    """Lets in whoever connects."""

    async def authenticate(self, caller: Caller) -> Identity:
        return _ANYONE


def _read(path: Path) -> bytes:
    """The file's text. Raises `ConfigError` if it is empty, or open to others than its owner."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        token = file.read().strip()
    if mode & 0o077:
        raise ConfigError(f"{path}: open to others; chmod 0600")
    if not token:
        raise ConfigError(f"{path}: empty")
    return token
