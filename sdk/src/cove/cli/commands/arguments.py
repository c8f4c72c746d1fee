"""Arguments that many sub-commands have, with what a shell may complete them to."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from cove.cli import completers
from cove.cli.errors import UsageError

_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST: Final = 7 * 86400
_LONGEST_LIFE: Final = 3650 * 86400
_SIZE: Final = re.compile(r"(\d{1,15})(?:([kmgtKMGT])(?:i?[bB])?|[bB]?)")

WORKSPACES: Final = "Workspaces"
"""The group of them in the help."""

FOLLOWED: Final = "0 if it could be done, 1 if not, 2 for a wrong command line."


def completed(action: argparse.Action, completer: Callable[..., Any]) -> None:
    """Have a shell complete an argument."""
    action.completer = completer  # type: ignore[attr-defined]


def workspace(parser: argparse.ArgumentParser, **settings: Any) -> None:
    """The argument WORKSPACE."""
    completed(
        parser.add_argument(
            "workspace", metavar="WORKSPACE", help="id of the workspace", **settings
        ),
        completers.workspaces,
    )


def execution(parser: argparse.ArgumentParser) -> None:
    """The argument EXECUTION, after that of its workspace."""
    completed(
        parser.add_argument("execution", metavar="EXECUTION", help="id of the execution"),
        completers.executions,
    )


def credentials(parser: argparse.ArgumentParser) -> None:
    """Options that prove the caller to a remote. Secrets are in files, or in the environment."""
    option = parser.add_argument_group("credentials for the remote").add_argument
    option("--username", help="for https (COVE_REMOTE_USERNAME)")
    option(
        "--password-stdin",
        action="store_true",
        help="read password or token from the standard input; else COVE_REMOTE_PASSWORD",
    )
    option("--ssh-key", type=Path, metavar="FILE", help="private key, for ssh")
    option("--known-hosts", type=Path, metavar="FILE", help="public keys of the hosts, for ssh")


def pairs(texts: Sequence[str], name: str) -> dict[str, str]:
    """`K=V` each. Raises `UsageError`."""
    found: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UsageError(f"{name} {text}: not of the form K=V")
        found[key] = value
    return found


def size(text: str) -> int:
    """A number of bytes like 4096, 512MiB, 2g; a unit is a power of 1024."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is not a size like 4096, 512MiB or 2GiB")
    return int(found[1]) << 10 * (" kmgt".index(found[2].lower()) if found[2] else 0)


def lifetime(text: str) -> float:
    """A time like 30m, 8h, 14d."""
    return _time(text, _LONGEST_LIFE, "30m, 8h or 14d, up to 3650d")


def seconds(text: str) -> float:
    """A time like 30, 30s, 5m."""
    return _time(text, _LONGEST, "30, 30s, 5m or 1h, up to 7d")


def _time(text: str, longest: int, like: str) -> float:
    number, unit = (text[:-1], text[-1]) if text[-1:] in set("smhd") else (text, "")
    try:
        found = float(number) * _SECONDS[unit]
    except ValueError:
        found = -1
    if not 0 < found <= longest:
        raise argparse.ArgumentTypeError(f"{text} is not a time like {like}")
    return found
