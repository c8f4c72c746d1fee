"""Secrets that are given to a command: never as words of a command line, which others can read."""

import os
from collections.abc import Sequence
from pathlib import Path

from cove.cli.errors import UsageError


def given(texts: Sequence[str], kept: Sequence[str]) -> dict[str, str | None]:
    """`NAME`, from our environment, or `NAME=@FILE` each; of `kept` the server has the values.

    Raises `UsageError`.
    """
    found: dict[str, str | None] = dict.fromkeys(kept)
    for text in texts:
        name, sign, value = text.partition("=")
        if sign and not value.startswith("@"):
            raise UsageError(
                f"--secret {name}=...: a value on a command line can be read by others",
                f"Use --secret {name} for the variable here, or --secret {name}=@FILE for a file.",
            )
        found[name] = _read(name, value[1:]) if sign else _of_environment(name)
    return found


def _of_environment(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise UsageError(
            f"--secret {name}: no such variable here",
            f"Export {name}, or use --secret {name}=@FILE.",
        )
    return value


def _read(name: str, path: str) -> str:
    """One newline at the end is not of the value."""
    try:
        value = Path(path).read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--secret {name}: {path} cannot be read: {error}") from None
    if not value:
        raise UsageError(f"--secret {name}: {path} is empty")
    return value
