"""The token of the first user, so that the first start needs nobody to make one."""

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from servicekit.secrets import open_to_others
from services.registry.database import make_folder
from services.registry.errors import StartError

_PREFIX: Final = "cove_"
_BYTES: Final = 32


def ensure(path: Path) -> None:
    """Make the file, whole or not at all, unless it is there. It is closed to others either way.

    One that is given may be read-only. Raises `StartError` when it cannot be the token.
    """
    try:
        _make(path)
    except OSError as error:
        raise StartError(f"{error.filename or path}: {error.strerror}") from error


def _make(path: Path) -> None:
    make_folder(path.parent)
    with contextlib.suppress(FileNotFoundError):
        _close(path)
        return
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{_PREFIX}{secrets.token_urlsafe(_BYTES)}\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        with contextlib.suppress(FileExistsError):  # Another process was faster.
            os.link(fresh, path)
    finally:
        fresh.unlink()


def _close(path: Path) -> None:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise StartError(f"{path}: not a file: remove it, or put the token there")
    if open_to_others(found):
        try:
            path.chmod(0o600)
        except OSError as error:
            raise StartError(f"{path}: open to others: chmod 0600 it: {error.strerror}") from None
