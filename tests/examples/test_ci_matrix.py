"""The CI bot that runs a matrix."""

import re

import pytest

from tests.examples.conftest import Bench
from tests.support.repository import git, make_repository

pytestmark = pytest.mark.asyncio(loop_scope="package")

_COMMAND = 'echo "begin $COLOUR"; echo "$SIZE"; test "$COLOUR$SIZE" != "redbig"'


async def test_each_cell_is_run_and_the_report_is_pushed(bench: Bench) -> None:
    repository = bench.repository()
    base = git(repository, "rev-parse", "main").strip()
    axes = ("COLOUR=red,blue", "SIZE=big,small")
    done = await bench.run("ci_matrix.py", f"file://{repository}", _COMMAND, *axes)
    assert (done.status, done.errors) == (1, "")
    for colour in ("red", "blue"):
        for size in ("big", "small"):
            prefix = f"[COLOUR={colour} SIZE={size}]"
            lines = [line for line in done.text.splitlines() if line.startswith(prefix)]
            assert lines == [f"{prefix} begin {colour}", f"{prefix} {size}"]
    branch = re.findall("^pushed (.*)", done.text, re.M)[0]
    assert git(repository, "log", "-1", "--format=%an: %s %P", branch).split("\n")[0] == (
        f"CI: CI: 3 of 4 passed {base}"
    )
    assert git(repository, "diff", "--name-only", "main", branch).split() == ["ci/report.md"]
    report = git(repository, "show", f"{branch}:ci/report.md")
    assert f"Commit {base}" in report
    assert re.search(r"\| COLOUR=red SIZE=big \| fail \(1\) \| [\d.]+ \|", report)
    assert report.count("| pass |") == 3
    await bench.nothing_left()


async def test_all_green_is_exit_status_0_at_the_revision_that_was_asked_for(bench: Bench) -> None:
    repository = bench.folder / "work"
    make_repository(repository, {"value": "old\n"})
    git(repository, "tag", "v1")
    (repository / "value").write_text("new\n")
    git(repository, "commit", "--quiet", "--all", "--message=New")
    bench.give()
    done = await bench.run("ci_matrix.py", str(repository), "cat value", "--revision", "v1")
    assert (done.status, done.errors) == (0, "")
    assert "[] old\n" in done.text
    await bench.nothing_left()
