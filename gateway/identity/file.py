"""Who shows the token that the operator has in a file; and anybody, where that is allowed."""

import hmac
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cove.options.v1.options_pb2 import Role
from gateway.identity.shown import bearer
from servicekit.config import ConfigError
from servicekit.errors import Unauthenticated
from servicekit.identity import Caller, Identity
from servicekit.secrets import open_to_others

_log = logging.getLogger(__name__)

INSTALLATION: Final = "default"
"""The tenant of the operator, to which also belongs what no tenant is known of."""
_ADMIN: Final = Identity("admin", INSTALLATION, Role.ROLE_ADMIN, operator=True)
_BELIEVED: Final = 0.02
"""Seconds after a look at the file in which the token that was there is let in without another: to
ask the kernel for every call costs more than all else that is done to know its caller."""
_ANYONE: Final = Identity("anonymous", INSTALLATION, Role.ROLE_ADMIN, operator=True)


class FileAuthenticator:
    """Lets in who shows the token in the file: `authorization: Bearer <token>`.

    The file is read again when it changes, so that a token can be replaced while
    callers are served: the new one counts at once, the old one for some milliseconds more. A file
    that others can read lets nobody in.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked = -_BELIEVED
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
        shown = bearer(caller).encode()
        now = self._clock()
        if now < self._looked + _BELIEVED and self._fits(shown):
            return _ADMIN
        self._looked = now
        self._look()
        if not self._fits(shown):
            raise Unauthenticated("no valid token")
        return _ADMIN

    def _fits(self, shown: bytes) -> bool:
        return bool(self._token) and hmac.compare_digest(shown, self._token)

    def _look(self) -> None:
        """Take the token that is in the file now; none when that cannot be used."""
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
            if seen != self._seen:
                self._token, self._seen = b"", seen
                self._token = _read(self._path)
        except (OSError, ConfigError) as error:
            _log.error("no caller is let in: %s", error)
            self._token = b""
            if isinstance(error, OSError):  # It may pass, though the file stays as it is.
                self._seen = ()


class NoAuthenticator:
    """Lets in whoever connects."""

    async def authenticate(self, caller: Caller) -> Identity:
        return _ANYONE


def _read(path: Path) -> bytes:
    """The file's text. Raises `ConfigError` if it is empty, or open to others than its owner."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        token = file.read().strip()
    if open_to_others(found):
        raise ConfigError(f"{path}: open to others; chmod 0600")
    if not token:
        raise ConfigError(f"{path}: empty")
    return token
