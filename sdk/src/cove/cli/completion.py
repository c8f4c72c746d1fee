"""Completion by a shell: the script that it evaluates, and the answers to what it asks."""

import argparse

import argcomplete
from argcomplete.shell_integration import shellcode

from cove.cli import completers
from cove.cli.console import Console
from cove.cli.parser import Parser


def script(options: argparse.Namespace, console: Console) -> int:
    """`cove completion`."""
    console.write(shellcode(["cove"], use_defaults=False, shell=options.shell).encode())
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell that asks by the variable _ARGCOMPLETE, and end the process."""
    Parser.intermixed = False
    argcomplete.autocomplete(
        parser,
        always_complete_options=False,
        default_completer=completers.by_type,  # type: ignore[arg-type] # A function will do.
    )
