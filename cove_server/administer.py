"""The sub-command `cove admin`. What it does is imported when it runs."""

import argparse
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

_BACKUP = """\
Copy the state directory into one file, while the suite runs and is written to: the registry as it
is at one moment, and all that the workspaces it names need, as it is then or later. The file is as
private as the state directory: the token and whatever is in workspaces is in it."""
_RESTORE = """\
Put back what a backup has, when nothing runs on the state directory. Every byte is verified before
anything is touched. A kill leaves the state as it was, or as it was to be at the next start."""
_CHECK = """\
Name every disagreement between the registry and the disk. With --repair, which needs the suite to
be stopped, each is mended: nothing that may be work is deleted, it goes to lost+found."""


def add_command(commands: Any) -> None:
    """Add the sub-command to `cove`."""
    parser = commands.add_parser(
        "admin",
        help="back up, restore and check a state directory",
        description="Back up, restore and check the state directory of `cove up`, as its user.",
        examples=[
            ("while the suite runs", "cove admin backup cove.tar"),
            ("when it is stopped", "cove admin restore cove.tar --replace"),
            ("what registry and disk disagree on", "cove admin check"),
        ],
        status="0 when it is done and all is well, 1 when `check` found something, 2 when it could"
        " not be done, or for a wrong command line.",
    )
    parser.intermixed = False
    parser.set_defaults(run=lambda _: 2)  # A verb has its own.
    parts = parser.add_subparsers(required=True, metavar="VERB")
    made = _add(parts, "backup", "copy the state directory while the suite runs", _BACKUP)
    made.add_argument("target", type=Path, metavar="FILE", help="a new file, or a directory")
    made.add_argument(
        "--registry", action="store_true", help="the registry alone: small, and without any work"
    )
    made.set_defaults(run=_lazy("cove_server.admin.command", "make_backup"))
    put = _add(parts, "restore", "put back what a backup has", _RESTORE)
    put.add_argument("source", type=Path, metavar="FILE", help="a backup")
    put.add_argument(
        "--replace",
        action="store_true",
        help="where there is a state; it is kept beside the new one",
    )
    put.set_defaults(run=_lazy("cove_server.admin.command", "restore_backup"))
    looked = _add(parts, "check", "name what registry and disk disagree on", _CHECK)
    looked.add_argument("--repair", action="store_true", help="mend it; the suite must be stopped")
    looked.add_argument("--deep", action="store_true", help="look at every object of repositories")
    looked.set_defaults(run=_lazy("cove_server.check.command", "check_state"))


def _add(parts: Any, name: str, text: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = parts.add_parser(name, help=text, description=description)
    option = parser.add_argument
    option("--state", type=Path, metavar="DIR", help="where everything is kept (COVE_STATE)")
    option("--runtime", type=Path, metavar="DIR", help="where the sockets are (COVE_RUNTIME)")
    option("--json", action="store_true", help="write JSON")
    return parser


def _lazy(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        status: int = getattr(import_module(module), name)(options, os.environ)
        return status

    return run
