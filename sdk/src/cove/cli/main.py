"""Reads the command line and runs a command."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, Final, TypeAlias

# Read by gRPC when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from cove.cli import files, information, running, source, workspaces
from cove.cli.console import Console
from cove.cli.errors import Failure
from cove.client import Client
from cove.status import CoveError

Command: TypeAlias = Callable[[Client, argparse.Namespace, Console], Awaitable[int]]

_PLUGINS: Final = "cove.commands"
_DEBUG: Final = "COVE_DEBUG"
_INTERRUPTED: Final = 128 + signal.SIGINT
_PIPE: Final = 128 + signal.SIGPIPE

_DESCRIPTION: Final = """\
Isolated, git-backed workspaces. The gateway is found by COVE_ADDRESS and COVE_TOKEN, or by what
`cove up` left in its state directory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit status: 1 for a failure, 2 for a wrong command line."""
    _open_streams()
    console = Console.standard()
    arguments, rest = _split(list(sys.argv[1:] if argv is None else argv))
    options = _parser().parse_args(arguments)
    console.as_json = getattr(options, "json", False)
    if rest is not None:
        options.argv = [*options.argv, *rest]
    try:
        status: int = options.run(options)
    except CoveError as error:
        console.failed(error)
        return 1
    except Failure as error:
        console.trouble(str(error), error.remedy)
        return error.status
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes it once more at the end.
        return _PIPE
    except UnicodeEncodeError as error:
        if _DEBUG in os.environ:
            raise
        text = error.object.encode(errors="replace").decode()
        console.trouble(f"{text}: not UTF-8", "Only paths of `cove cp` and `ls-files` may be that.")
        return 2
    except Exception as error:
        if _DEBUG in os.environ:
            raise
        console.trouble(f"{type(error).__name__}: {error}", f"{_DEBUG}=1 shows where.")
        return 1
    return status


def _open_streams() -> None:
    """A standard stream that is closed takes and gives nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - for good.


def _split(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """What comes after `--` in `cove exec` is the command's, dashes and all."""
    if "exec" not in arguments[:1] or "--" not in arguments:
        return arguments, None
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


class _SubParser(argparse.ArgumentParser):
    """Options may stand between the other arguments: `cove commit demo -m TEXT PATH`."""

    _inner = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        if self._inner:
            return super().parse_known_args(args, namespace)
        self._inner = True
        try:
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inner = False
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")  # With its own usage.
        return found, unknown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cove", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"cove {version('cove')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_SubParser)
    common = _SubParser(add_help=False)
    option = common.add_argument_group("connection").add_argument
    option("--address", metavar="ADDR", help="the gateway, host:port (COVE_ADDRESS)")
    option("--state", type=Path, metavar="DIR", help="state directory of `cove up` (COVE_STATE)")
    common.add_argument("--json", action="store_true", help="write JSON")

    def add(name: str, command: Command, summary: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", parents=[common]
        )
        made.set_defaults(run=partial(_run, command))
        return made

    for module in (workspaces, running, files, source, information):
        module.add(add)
    _add_plugins(commands)
    return parser


def _add_plugins(commands: Any) -> None:
    """Sub-commands of other distributions, for example `up` of cove-server."""
    for plugin in sorted(entry_points(group=_PLUGINS)):
        plugin.load()(commands)


def _run(command: Command, options: argparse.Namespace) -> int:
    console = Console.standard()
    console.as_json = options.json

    async def run() -> int:
        async with Client(options.address, state=options.state) as client:
            return await command(client, options, console)

    return asyncio.run(run())
