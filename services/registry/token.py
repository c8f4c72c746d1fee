"""The token of the first user, so that the first start needs nobody to make one."""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from services.registry.database import make_folder

_PREFIX: Final = "cove_"
_BYTES: Final = 32


def ensure(path: Path) -> None:
    """Make the file, whole or not at all, unless it is there. Its mode is 0600 either way."""
    make_folder(path.parent)
    with contextlib.suppress(FileNotFoundError):
        path.chmod(0o600)
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
