"""The agent that fixes a failing test."""

import re
from pathlib import Path

import pytest

from tests.examples.conftest import Bench
from tests.support.repository import git

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_the_smallest_fix_that_passes_is_pushed(bench: Bench) -> None:
    done = await bench.run("fix_failing_test.py")
    assert (done.status, done.errors) == (0, "")
    repository = Path(re.findall("^repository (.*)", done.text)[0])
    rows = dict(re.findall(r"^(first idea|rewrite|smallest change) +(.*)$", done.text, re.M))
    assert rows["first idea"].split() == ["fail", "+1", "-1", "-"]
    assert rows["rewrite"].split() == ["pass", "+6", "-1", "-"]
    *rest, branch = rows["smallest change"].split()
    assert rest == ["pass", "+1", "-1"]
    branches = git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads/cove")
    assert branches.split() == [branch]
    assert git(repository, "log", "-1", "--format=%an: %s", branch).strip() == (
        "Agent: Fix the tests: smallest change"
    )
    assert git(repository, "diff", "--name-only", f"{branch}~", branch).split() == ["stats.py"]
    assert "max(len(values), 1)" in git(repository, "show", f"{branch}:stats.py")
    await bench.nothing_left()


async def test_where_no_attempt_passes_nothing_is_pushed(bench: Bench) -> None:
    files = {"stats.py": "", "test_stats.py": "raise SystemExit(1)\n"}
    repository = bench.repository(files)
    done = await bench.run("fix_failing_test.py", str(repository), "python3 test_stats.py")
    assert (done.status, done.errors) == (1, "")
    assert git(repository, "branch", "--format=%(refname:short)").split() == ["main"]
    await bench.nothing_left()
