"""Reads the command line and runs a command."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# Read by gRPC when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from cove.cli.commands import (
    agents,
    files,
    information,
    running,
    source,
    tenant,
    tokens,
    workspaces,
)
from cove.cli.console import Console
from cove.cli.errors import Failure
from cove.cli.parser import Commands, Parser, meant

_PLUGINS: Final = "cove.commands"
_DEBUG: Final = "COVE_DEBUG"
_COMPLETING: Final = "_ARGCOMPLETE"
_INTERRUPTED: Final = 128 + signal.SIGINT
_PIPE: Final = 128 + signal.SIGPIPE
_USAGE: Final = 2

_DESCRIPTION: Final = """\
Isolated, git-backed workspaces: make one from a repository, run commands in it, see what changed,
commit, push, throw it away.

The gateway is found by COVE_ADDRESS and COVE_TOKEN, or by what `cove up` left in its state
directory. COVE_CA_FILE, COVE_CERTIFICATE_FILE and COVE_KEY_FILE are for one over TLS, https://HOST:PORT.
`cove help COMMAND` says more of each command."""
_EXAMPLES: Final = """\
Examples:
  cove up &                        # the whole suite, on this machine
  cove create . --id demo          # a workspace of the repository here
  cove exec demo make test
  cove commit demo -m "Say when"
  cove push demo
  cove rm demo"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit status: 1 for a failure, 2 for a wrong command line."""
    _open_streams()
    console = Console.standard()
    given = list(sys.argv[1:] if argv is None else argv)
    if _COMPLETING in os.environ:
        from cove.cli.completion import complete

        complete(command_line()[0])
    parser, commands = command_line(given)
    arguments = _asked_for_help(given, commands)
    if not arguments:
        console.note(parser.format_help().rstrip())
        return _USAGE
    if not arguments[0].startswith("-") and arguments[0] not in commands.parsers:
        remedy = meant(arguments[0], [*commands.parsers]) or "`cove help` lists all commands."
        console.trouble(f"there is no command {arguments[0]}", remedy)
        return _USAGE
    options = parser.parse_args(arguments)
    console.as_json = getattr(options, "json", False)
    return _guarded(options, console)


def command_line(arguments: Sequence[str] = ()) -> tuple[argparse.ArgumentParser, Commands]:
    """The parser of the whole command line, and what it knows.

    Of `arguments` that begin with a sub-command of this distribution, only what they can be:
    to look for what else is installed takes as long as all the rest.
    """
    parser = _TopParser(prog="cove", description=_DESCRIPTION, usage="cove COMMAND [ARGUMENT ...]")
    commands = Commands.of(parser)
    for module in (workspaces, running, files, source, agents, tenant, tokens, information):
        module.add(commands)
    if not arguments or arguments[0] not in commands.parsers:
        _add_what_is_installed(parser, commands)
    information.add_help(commands)
    parser.epilog = f"{commands.overview()}\n\n{_EXAMPLES}"
    return parser, commands


def _add_what_is_installed(parser: argparse.ArgumentParser, commands: Commands) -> None:
    """Add the version, and the sub-commands of other distributions, as `up` of cove-server."""
    from importlib.metadata import entry_points, version

    parser.add_argument("--version", action="version", version=f"cove {version('cove')}")
    for plugin in sorted(entry_points(group=_PLUGINS)):
        plugin.load()(commands)


class _TopParser(Parser):
    intermixed = False


def _asked_for_help(arguments: list[str], commands: Commands) -> list[str]:
    """`cove help exec` is `cove exec --help`."""
    if arguments[:1] != ["help"] or any(each.startswith("-") for each in arguments):
        return arguments
    if arguments[1:] and arguments[1] not in commands.parsers:
        return arguments[1:]  # Which is told as no command.
    return [*arguments[1:2], "--help"]


def _guarded(options: argparse.Namespace, console: Console) -> int:
    """Run it; whatever is raised ends in a word and a status, never in a traceback."""
    try:
        status: int = options.run(options)
    except Failure as error:
        console.trouble(str(error), error.remedy)
        return error.status
    except _interruptions():
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes it once more at the end.
        return _PIPE
    except UnicodeEncodeError as error:
        if _DEBUG in os.environ:
            raise
        text = error.object.encode(errors="replace").decode()
        console.trouble(f"{text}: not UTF-8", "Only paths of `cove cp` and `ls-files` may be that.")
        return _USAGE
    except Exception as error:
        if _DEBUG in os.environ:
            raise
        console.trouble(f"{type(error).__name__}: {error}", f"{_DEBUG}=1 shows where.")
        return 1
    return status


def _interruptions() -> tuple[type[BaseException], ...]:
    """What Ctrl-C raises. To import asyncio takes a while, and not all commands do."""
    from asyncio import CancelledError

    return (KeyboardInterrupt, CancelledError)


def _open_streams() -> None:
    """A standard stream that is closed takes and gives nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - for good.
