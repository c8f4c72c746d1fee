"""The command line's grammar and its help. Imports nothing that takes a while."""

import argparse
import difflib
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from cove.cli.console import Console
from cove.cli.dispatch import locally, with_client

SERVER: Final = "Server"
GROUPS: Final = ("Workspaces", "Commands", "Files", "Git", SERVER, "Help")

_WIDEST: Final = 80
_INDENT: Final = "  "
_CLOSE: Final = 0.6
"""How alike two words must be for one to be meant by the other."""


class Formatter(argparse.HelpFormatter):
    """Wraps paragraphs, and leaves lines that are indented as they are."""

    def __init__(self, prog: str) -> None:
        width = min(_WIDEST, shutil.get_terminal_size().columns) - 2
        super().__init__(prog, max_help_position=26, width=max(width, 40))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(_paragraph(each, width, indent) for each in text.split("\n\n"))


def _paragraph(text: str, width: int, indent: str) -> str:
    lines: list[str] = []
    prose: list[str] = []
    for line in [*text.splitlines(), _INDENT]:
        if line.startswith(_INDENT):
            lines += textwrap.wrap(
                " ".join(prose), width, initial_indent=indent, subsequent_indent=indent
            )
            prose.clear()
            lines.append(line)
        else:
            prose.append(line.strip())
    return "\n".join(lines[:-1])


class Parser(argparse.ArgumentParser):
    """One command. Options may stand between its arguments: `cove commit demo -m TEXT PATH`."""

    takes_command = False
    """What follows its first argument and the options after that is a command, dashes and all."""

    intermixed = True
    examples: Sequence[tuple[str, str]] = ()
    """What an example does, and its command line."""

    _inner = False

    def __init__(self, **settings: Any) -> None:
        settings = {"formatter_class": Formatter, "allow_abbrev": False, **settings}
        super().__init__(**settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        if self._inner or not self.intermixed:
            return super().parse_known_args(args, namespace)
        own, command = self._split(list(args)) if self.takes_command else (args, [])
        self._inner = True
        try:
            found, unknown = self.parse_known_intermixed_args(own, namespace)
        finally:
            self._inner = False
        if unknown:
            self._refuse(unknown)
        if self.takes_command:
            found.argv = command
        return found, unknown

    def _split(self, args: list[str]) -> tuple[list[str], list[str]]:
        """Our own words, and those of the command."""
        arguments, at = 0, 0
        while at < len(args):
            word = args[at]
            if word == "--":
                rest = args[at + 1 :]
                return (args[:at], rest) if arguments else ([*args[:at], *rest[:1]], rest[1:])
            if not word.startswith("-") or word == "-":
                if arguments:
                    return args[:at], args[at:]
                arguments += 1
            elif self._takes_next(word):
                at += 1
            at += 1
        return args, []

    def _takes_next(self, word: str) -> bool:
        """Whether the value of this option is the next word."""
        if word.startswith("--"):
            action = self._option_string_actions.get(word)
            return action is not None and action.nargs != 0
        for place, letter in enumerate(word[1:], start=2):
            action = self._option_string_actions.get(f"-{letter}")
            if action is None:
                return False
            if action.nargs != 0:
                return place == len(word)
        return False

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        word = unknown[0].partition("=")[0]
        known = [each for each in self._option_string_actions if each.startswith("--")]
        self.error(f"unrecognized arguments: {' '.join(unknown)}", meant(word, known))

    def error(self, message: str, remedy: str = "") -> NoReturn:
        console = Console.standard()
        console.note(self.format_usage().rstrip())
        topic = self.prog.removeprefix("cove").strip()
        console.trouble(message, remedy or f"`cove help{topic and f' {topic}'}` says more.")
        self.exit(2)


def meant(word: str, known: Sequence[str]) -> str:
    """What to do instead, when a known word is much like this one."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=_CLOSE)
    return f"Did you mean {found[0]}?" if found else ""


@dataclass(slots=True)
class _Listed:
    group: str
    name: str
    summary: str


@dataclass(slots=True)
class Commands:
    """The sub-commands, in groups by what one does with them."""

    _actions: Any
    common: argparse.ArgumentParser
    """Options of all that call the gateway."""
    _listed: list[_Listed] = field(default_factory=list)

    @classmethod
    def of(cls, parser: argparse.ArgumentParser) -> "Commands":
        common = Parser(add_help=False)
        option = common.add_argument_group("connection").add_argument
        option(
            "--address",
            metavar="ADDR",
            help="the gateway, host:port or https://host:port (COVE_ADDRESS)",
        )
        option(
            "--state", type=Path, metavar="DIR", help="state directory of `cove up` (COVE_STATE)"
        )
        option(
            "--tenant", metavar="NAME", help="for operators: whose tenant to act in (COVE_TENANT)"
        )
        common.add_argument("--json", action="store_true", help="write JSON")
        actions = parser.add_subparsers(
            metavar="COMMAND",
            required=True,
            prog="cove",
            parser_class=Parser,
            help=argparse.SUPPRESS,
        )
        return cls(actions, common)

    def add_parser(
        self,
        name: str,
        *,
        help: str,  # noqa: A002 - as argparse has it.
        description: str = "",
        examples: Sequence[tuple[str, str]] = (),
        status: str = "",
        group: str = SERVER,
        **settings: Any,
    ) -> Parser:
        """Add a sub-command. Its parser's default `run` takes the options, returns the status."""
        self._listed.append(_Listed(group, name, help))
        epilog = [_examples(examples)] if examples else []
        epilog += [f"Exit status: {status}"] if status else []
        made: Parser = self._actions.add_parser(
            name,
            help=help,
            description=description or f"{help[0].upper()}{help[1:]}.",
            epilog="\n\n".join(epilog),
            **settings,
        )
        made.examples = examples
        return made

    def add(self, name: str, handler: str, summary: str, **settings: Any) -> Parser:
        """Add one that calls the gateway: `handler` is `module:function` of `cove.cli`."""
        made = self.add_parser(name, help=summary, parents=[self.common], **settings)
        made.set_defaults(run=partial(with_client, handler))
        return made

    def add_local(self, name: str, handler: str, summary: str, **settings: Any) -> Parser:
        """Add one whose function gets no client."""
        made = self.add_parser(name, help=summary, **settings)
        made.set_defaults(run=partial(locally, handler))
        return made

    @property
    def parsers(self) -> dict[str, Parser]:
        return dict(self._actions.choices)

    def overview(self) -> str:
        """All of them, each in a line, in their groups."""
        width = max(len(each.name) for each in self._listed) + 2
        parts = []
        for group in _in_order(each.group for each in self._listed):
            listed = [each for each in self._listed if each.group == group]
            lines = [f"{_INDENT}{each.name:<{width}}{each.summary}" for each in listed]
            parts.append("\n".join([f"{group}:", *lines]))
        return "\n\n".join(parts)


def _examples(pairs: Sequence[tuple[str, str]]) -> str:
    lines = ["Examples:"]
    for says, command in pairs:
        lines += [f"{_INDENT}# {says}", f"{_INDENT}{command}"]
    return "\n".join(lines)


def _in_order(groups: Iterable[str]) -> list[str]:
    there = dict.fromkeys(groups)
    return [*(each for each in GROUPS if each in there), *(set(there) - set(GROUPS))]
