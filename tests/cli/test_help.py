"""The help: complete, true, and fit for a terminal."""

import asyncio
import shlex
import subprocess
import sys
from functools import partial

import pytest

from cove.cli.dispatch import loaded
from cove.cli.main import command_line
from cove.cli.parser import Parser
from tests.support.suite import Suite

PARSER, COMMANDS = command_line()
NAMES = sorted(COMMANDS.parsers)
EXAMPLES = [(name, line) for name in NAMES for _, line in COMMANDS.parsers[name].examples]


def words(example: str) -> list[str]:
    """The words of `cove` itself: what a shell does around them is left out."""
    text = example.partition("$(cove ")[2].rpartition(")")[0] or example.partition("cove ")[2]
    found: list[str] = []
    splitting = shlex.shlex(text, posix=True, punctuation_chars="|<>;&")
    splitting.whitespace_split = True
    for word in splitting:
        if set(word) <= set("|<>;&"):
            break
        found.append(word)
    return found


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_an_example_and_says_how_it_ends(name: str) -> None:
    text = COMMANDS.parsers[name].format_help()
    assert "\nExamples:\n" in text
    assert "\nExit status: " in text


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_every_example_is_a_command_line(name: str, line: str) -> None:
    assert shlex.split(line)  # A shell would take it.
    arguments = words(line)
    assert arguments[0] == name
    if name != "help":
        assert PARSER.parse_args(arguments).run


@pytest.mark.parametrize("name", ["", *NAMES])
def test_no_line_is_wider_than_a_terminal(name: str) -> None:
    parser: object = COMMANDS.parsers[name] if name else PARSER
    assert isinstance(parser, Parser)
    lines = parser.format_help().splitlines()
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_command_does_something(name: str) -> None:
    run = COMMANDS.parsers[name].get_default("run")
    if isinstance(run, partial):
        assert callable(loaded(run.args[0]))
    else:
        assert run is not None or name == "help"


def test_a_command_is_parsed_without_what_takes_long_to_import() -> None:
    program = (
        "import sys; from cove.cli.main import command_line; command_line(['ls', '--json']);"
        "print([name for name in ('asyncio', 'grpc', 'importlib.metadata', 'cove_server')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_every_command_is_in_the_overview() -> None:
    text = PARSER.format_help()
    assert [name for name in NAMES if f"\n  {name} " not in text] == []
    groups = ("Workspaces:", "Commands:", "Files:", "Git:", "Server:", "Help:")
    places = [text.index(group) for group in groups]
    assert places == sorted(places)


@pytest.mark.asyncio(loop_scope="package")
async def test_help_is_the_same_however_it_is_asked_for(suite: Suite) -> None:
    asked = [await suite.cove(*words) for words in (["help", "exec"], ["exec", "-h"])]
    assert asked[0].text == asked[1].text
    assert asked[0].text.startswith("usage: cove exec ")
    assert (await suite.cove("help")).text == (await suite.cove("--help")).text
    assert (await suite.cove("help", "--help")).text.startswith("usage: cove help")


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["exce"], "there is no command exce\nremedy: Did you mean exec?"),
        (["help", "lss"], "there is no command lss\nremedy: Did you mean ls?"),
        (["xyzzy"], "there is no command xyzzy\nremedy: `cove help` lists all commands."),
        (["ls", "--jsn"], "unrecognized arguments: --jsn\nremedy: Did you mean --json?"),
        (["exec", "--detatch", "demo", "ls"], "--detatch\nremedy: Did you mean --detach?"),
        (["show"], "required: WORKSPACE\nremedy: `cove help show` says more."),
        (["create", "--memory", "much"], "much is not a size like 4096, 512MiB or 2GiB"),
        (["ls", "--js"], "unrecognized arguments: --js"),
    ],
)
async def test_a_word_that_is_wrong_is_told_with_the_right_one(
    suite: Suite, arguments: list[str], said: str
) -> None:
    done = await suite.cove(*arguments)
    assert done.status == 2
    assert said in done.errors
    assert done.stdout == b""


@pytest.mark.asyncio(loop_scope="package")
async def test_version_is_that_of_both_ends(suite: Suite) -> None:
    async with asyncio.timeout(60):
        while "no answer" in (done := await suite.cove("version")).text:
            pass  # Which it says after two seconds.
    ours, theirs = done.text.splitlines()
    assert ours.startswith("cove: ")
    assert theirs.split() == ["gateway:", ours.split()[1]]
    alone = await suite.cove("version", "--address", "127.0.0.1:1")
    assert (alone.status, alone.errors) == (0, "")
    assert "no answer at 127.0.0.1:1" in alone.text
