"""Reads secrets from files."""

from pathlib import Path

from servicekit.config import ConfigError


def read_secret(path: Path) -> str:
    """The file's text. Raises `ConfigError` if it is empty, missing, or readable by anyone."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if mode & 0o007:
        raise ConfigError(f"{path}: open to everyone; chmod 0600")
    if not text:
        raise ConfigError(f"{path}: empty")
    return text
