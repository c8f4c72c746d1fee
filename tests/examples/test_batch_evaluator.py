"""The batch evaluator, also when it is killed."""

import asyncio
import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cove import Client, FailedPrecondition, NotFound
from cove.executor.v1.executor_pb2 import Execution
from tests.examples.conftest import Bench
from tests.support.repository import git

pytestmark = pytest.mark.asyncio(loop_scope="package")

_PATCH = """\
--- a/value
+++ b/value
@@ -1 +1 @@
-bad
+good
"""
_BOUND = 90.0


def task(repository: Path, name: str, check: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "repository": f"file://{repository}", "check": check, **more}


def write(bench: Bench, tasks: list[dict[str, Any]]) -> None:
    (bench.folder / "tasks.jsonl").write_text("".join(json.dumps(each) + "\n" for each in tasks))
    bench.give()


def results(bench: Bench, batch: str) -> dict[str, dict[str, Any]]:
    lines = (bench.folder / f"{batch}.jsonl").read_text().splitlines()
    found = {each["id"]: each for each in map(json.loads, lines)}
    assert len(found) == len(lines)
    return found


def committed(repository: Path, batch: str) -> dict[str, dict[str, Any]]:
    text = git(repository, "show", f"cove/{batch}-results:results/{batch}.jsonl")
    return {each["id"]: each for each in map(json.loads, text.splitlines())}


async def test_every_outcome_is_told_and_committed(bench: Bench) -> None:
    repository = bench.repository({"value": "bad\n"})
    check = "test $(cat value) = good"
    write(
        bench,
        [
            task(repository, "good", check, patch=_PATCH),
            task(repository, "none", check),
            task(
                repository, "torn", check, patch="--- a/value\n+++ b/value\n@@ -1 +1 @@\n-x\n+y\n"
            ),
            task(repository, "slow", "sleep 60", timeout=1),
            task(repository, "setup", check, setup="echo no rule; exit 2"),
            task(repository, "lost", check, revision="none-such"),
        ],
    )
    arguments = ("nightly", "tasks.jsonl", f"file://{repository}")
    done = await bench.run("batch_evaluator.py", *arguments)
    assert (done.status, done.errors) == (0, "")
    found = results(bench, "nightly")
    assert {name: each["outcome"] for name, each in found.items()} == {
        "good": "passed",
        "none": "check failed",
        "torn": "patch failed",
        "slow": "check timed out",
        "setup": "setup failed",
        "lost": "error",
    }
    assert found["setup"]["output"] == "no rule\n"
    assert found["setup"]["exit_status"] == 2
    assert "ERROR_REASON_REVISION_NOT_FOUND" in found["lost"]["output"]
    assert committed(repository, "nightly") == found
    log = git(repository, "log", "-1", "--format=%an: %s%n%H", "cove/nightly-results").split("\n")
    assert log[0] == "Evaluator: nightly: 1 of 6 passed"
    assert f"committed {log[1]}" in done.text
    again = await bench.run("batch_evaluator.py", *arguments)
    assert (again.status, again.text) == (0, f"committed {log[1]}\n")
    await bench.nothing_left()


async def test_killed_it_goes_on_where_it_was_and_runs_nothing_twice(bench: Bench) -> None:
    repository = bench.repository()
    waiting = "echo run >> .runs; while [ ! -e go ]; do sleep 0.05; done; grep -c run .runs"
    write(bench, [task(repository, "quick", "true"), task(repository, "slow", waiting)])
    arguments = ("killed", "tasks.jsonl", f"file://{repository}")
    process = await bench.start("batch_evaluator.py", *arguments)
    assert process.stdout
    async with bench.suite.client() as cove, asyncio.timeout(_BOUND):
        assert await process.stdout.readline() == b"quick passed\n"
        running = await begun(cove, "killed-slow", "check")
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        assert list(results(bench, "killed")) == ["quick"]
        again = await bench.start("batch_evaluator.py", *arguments)
        slow = cove.workspaces.named("killed-slow")
        still = await slow.executions.named("check").refresh()
        assert still.state == Execution.STATE_RUNNING
        assert still.create_time == running.create_time
        await slow.write("go", "")
        stdout, stderr = await again.communicate()
    assert (again.returncode, stderr) == (0, b""), stderr.decode()[-3000:]
    assert stdout.startswith(b"slow passed\ncommitted ")
    found = results(bench, "killed")
    assert found["slow"]["output"] == "1\n"
    assert committed(repository, "killed") == found
    await bench.nothing_left()


async def begun(cove: Client, workspace: str, execution: str) -> Execution:
    """An execution as soon as it runs."""
    while True:
        with suppress(FailedPrecondition, NotFound):  # There is not even the workspace.
            found = await cove.workspaces.named(workspace).executions.named(execution).refresh()
            if found.state == Execution.STATE_RUNNING:
                return found
        await asyncio.sleep(0.05)
