"""Reads secrets from files."""

import os
from pathlib import Path
from typing import Final

from servicekit.config import ConfigError

_OTHERS: Final = 0o077
_WRITABLE: Final = 0o037


def open_to_others(found: os.stat_result) -> bool:
    """Whether others than its owner may read or change a file.

    One that is root's and that root lets our group read is not: so a secret is mounted for a
    process that is not root, which cannot own it.
    """
    let = found.st_uid == 0 and os.geteuid() != 0 and not found.st_mode & _WRITABLE
    return bool(found.st_mode & _OTHERS) and not let


def read_secret(path: Path) -> str:
    """The file's text. Raises `ConfigError` if it is empty, missing, or readable by anyone; and for
    what no header can have, as that is where it goes."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if mode & 0o007:
        raise ConfigError(f"{path}: open to everyone; chmod 0600")
    if not text:
        raise ConfigError(f"{path}: empty")
    if not text.isascii() or not text.isprintable():
        raise ConfigError(f"{path}: not one line of ASCII")
    return text
