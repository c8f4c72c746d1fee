"""Which programs there are, and what is said where a machine has not what they need."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interop.languages import PROGRAMS, ROOT, Program, Tool, chosen
from tests.interop.scenario import Scenario, check_lines

_BASH = Tool(("bash", "--version"), "apt-get install bash", (3, 0))


def test_what_is_missing_is_named_with_what_brings_it() -> None:
    gone = Tool(("no-such-tool", "--version"), "apt-get install it")
    old = Tool(("bash", "--version"), "a bash of the future", (999, 0))
    package = Tool(("x", "--version"), "pip install x", package="no-such-package")
    assert Program("any", (_BASH,)).missing() == []
    assert Program("any", (_BASH, gone, old, package)).missing() == [
        "no-such-tool (apt-get install it)",
        "bash (a bash of the future)",
        "x (pip install x)",
    ]


def test_some_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVE_INTEROP", "python,go")
    assert [program.name for program in chosen()] == ["python", "go"]
    monkeypatch.setenv("COVE_INTEROP", "python,cobol")
    with pytest.raises(ValueError, match="cobol"):
        chosen()
    monkeypatch.delenv("COVE_INTEROP")
    assert chosen() == PROGRAMS


def test_a_program_that_leaves_a_step_out_fails() -> None:
    run = Scenario("x", "1", [{"step": "create", "name": "workspaces/x-1", "uid": "u"}])
    with pytest.raises(AssertionError):
        check_lines(run)


@pytest.mark.skipif(not shutil.which("gofmt"), reason="needs gofmt, of Go")
def test_what_is_written_in_go_is_formatted() -> None:
    done = subprocess.run(["gofmt", "-l", Path("examples/go")], cwd=ROOT, capture_output=True)
    assert (done.stdout, done.stderr) == (b"", b"")
