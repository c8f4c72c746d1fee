"""The sub-command `cove doctor`. What it does is imported when it runs."""

import argparse
import os
from pathlib import Path
from typing import Any

from cove_server.up import GRPC, HTTP

_DESCRIPTION = """\
Look at this host as the suite would use it: what is there, what can be enforced, and for what is
missing the command that gives it. A sandbox and a cell of git are really made, by the launcher
that runs or by one that is started for it, and removed again. No suite needs to run, and nobody
needs to be root: run it as the user of `cove up`."""


def add_command(commands: Any) -> None:
    """Add the sub-command to `cove`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="say what this host can do, and what is missing",
        description=_DESCRIPTION,
        examples=[
            ("before the first `cove up`", "cove doctor"),
            ("what failed, for a program", "cove doctor --json | jq '.checks[]'"),
        ],
        status="0 when workspaces can be made, 1 when not, 2 for a wrong command line.",
    )
    option = parser.add_argument
    option("--state", type=Path, metavar="DIR", help="where everything is kept (COVE_STATE)")
    option("--runtime", type=Path, metavar="DIR", help="where the sockets are (COVE_RUNTIME)")
    option("--json", action="store_true", help="write JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Returns the exit status."""
    from cove_server.doctor.command import run as look

    grpc = os.environ.get("COVE_GATEWAY__GRPC") or GRPC
    http = os.environ.get("COVE_GATEWAY__HTTP") or HTTP
    return look(options, {"grpc": grpc, "http": http})
