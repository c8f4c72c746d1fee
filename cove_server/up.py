"""`cove up`: starts the whole suite on this machine."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GRPC = "127.0.0.1:7420"
HTTP = "127.0.0.1:7421"

_DESCRIPTION = """\
Start the launcher and the five services, and start again what dies. One line of JSON on the
standard output says where, when all are healthy; logs go to the standard error. SIGTERM or Ctrl-C
ends it: the gateway first, then the other services, then the sandboxes, whose files stay."""


def add_command(commands: Any) -> None:
    """Add the sub-command to `cove`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "up",
        help="start the whole suite on this machine",
        description=_DESCRIPTION,
        examples=[
            ("for one person, on loopback", "cove up"),
            ("with the web console", "make console && cove up --console"),
            ("somewhere else, on free ports", "cove up --state ./state --grpc 127.0.0.1:0"),
        ],
        status="0 after SIGTERM or Ctrl-C, 1 when it cannot start, 2 for a wrong configuration.",
    )
    option = parser.add_argument
    option("--state", type=Path, metavar="DIR", help="where everything is kept (COVE_STATE)")
    option("--runtime", type=Path, metavar="DIR", help="where the sockets are (COVE_RUNTIME)")
    option("--grpc", metavar="ADDR", help=f"where callers connect by gRPC; default {GRPC}")
    option("--http", metavar="ADDR", help=f"where callers connect by HTTP; default {HTTP}")
    option("--console", action="store_true", help="serve the web console, and say where it is")
    option("--no-auth", action="store_true", help="let in whoever connects; loopback only")
    option("--keep", action="store_true", help="leave the sandboxes running at the end")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the suite until a signal. Returns the exit status."""
    from cove_server.places import Places
    from cove_server.suite import Settings, serve

    env: Mapping[str, str] = os.environ
    settings = Settings(
        places=Places.choose(env, options.state, options.runtime),
        grpc=options.grpc or env.get("COVE_GATEWAY__GRPC") or GRPC,
        http=options.http or env.get("COVE_GATEWAY__HTTP") or HTTP,
        no_auth=options.no_auth,
        console=options.console,
        keep=options.keep,
        env=env,
    )
    return serve(settings)
