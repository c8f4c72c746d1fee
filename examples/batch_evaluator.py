"""A batch evaluator: is each candidate patch good? Killed at any moment, it goes on where it was.

    cove up &
    python examples/batch_evaluator.py BATCH tasks.jsonl RESULTS-REPOSITORY

A line of tasks.jsonl: {"id": "a1", "repository": URL, "revision": "main", "setup": "make deps",
"patch": "--- a/f ...", "check": "make test", "timeout": 600}. The timeout is in seconds, for each
command; it, revision, setup and patch may be missing. Results come into BATCH.jsonl, one line when
a task ends, and at last into a commit, as results/BATCH.jsonl on a branch of RESULTS-REPOSITORY.

Nothing ever runs twice: the ids of workspaces, commands and requests are made of BATCH and the
task's id. What was going on when this program died is found again by its id and waited for, not
started anew: call it again with the same BATCH. Another run takes another name; names and ids are
lower-case letters, digits and dashes.
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from cove import Aborted, Client, CoveError, DeadlineExceeded, Result, Unavailable, Workspace

PARALLEL, TRIES, TIMEOUT, TAIL = 4, 3, 600, 2000


def request_id(*names: str) -> str:
    """The same for the same names, whichever process asks."""
    return str(uuid5(NAMESPACE_OID, "/".join(names)))


def outcome(step: str, result: Result) -> dict[str, Any]:
    exit = result.execution.exit
    ended = "timed out" if exit.WhichOneof("reason") == "timed_out" else "failed"
    return {
        "outcome": "passed" if result.exit_status == 0 else f"{step} {ended}",
        "exit_status": result.exit_status,
        "seconds": (exit.end_time.ToDatetime() - exit.start_time.ToDatetime()).total_seconds(),
        "output": result.text[-TAIL:],
    }


async def evaluate(workspace: Workspace, task: dict[str, Any]) -> dict[str, Any]:
    """Set up, apply the patch, check. Each has an id: it runs once, however often it is asked."""
    patch, found = task.get("patch"), {}
    if patch:
        await workspace.write(".candidate.patch", patch)
    apply = patch and "git apply .candidate.patch"
    for step, script in (("setup", task.get("setup")), ("patch", apply), ("check", task["check"])):
        if script:
            result = await workspace.execute(
                script=script, id=step, timeout=task.get("timeout", TIMEOUT), merge_stderr=True
            )
            found = outcome(step, result)
            if result.exit_status:
                break
    return found


async def attempt(cove: Client, name: str, task: dict[str, Any]) -> dict[str, Any]:
    """The result of a task. What fails on the way to it is tried again, with the same ids."""
    for left in reversed(range(TRIES)):
        try:
            workspace = await cove.workspaces.create(
                task["repository"],
                revision=task.get("revision", ""),
                id=name,
                request_id=request_id(name),
            )
            return await evaluate(workspace, task)
        except (Aborted, DeadlineExceeded, Unavailable) as error:
            if not left:
                return {"outcome": "error", "output": f"{error.reason}: {error}"}
            await asyncio.sleep(error.retry_after or 1)
        except CoveError as error:
            return {"outcome": "error", "output": f"{error.reason}: {error}. {error.remedy}"}
    raise AssertionError


async def remove(workspace: Workspace) -> None:
    """Have it gone, also when a former run was just at that."""
    while True:
        try:
            await workspace.delete(force=True, allow_missing=True)
            return
        except Aborted as error:
            await asyncio.sleep(error.retry_after or 1)


async def commit(home: Workspace, batch: str, results: list[dict[str, Any]]) -> str:
    """Push the results. Done again, it is the same commit."""
    lines = "".join(json.dumps(each) + "\n" for each in results)
    await home.write(f"results/{batch}.jsonl", lines, make_parents=True)
    good = sum(each["outcome"] == "passed" for each in results)
    made = await home.commit(
        f"{batch}: {good} of {len(results)} passed",
        author=("Evaluator", "evaluator@example.org"),
        request_id=request_id(home.name, "commit"),
    )
    await home.push()
    return made.commit.id


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("batch")
    parser.add_argument("tasks", type=Path)
    parser.add_argument("repository", help="for the results")
    options = parser.parse_args()
    batch, file = options.batch, Path(f"{options.batch}.jsonl")
    tasks = [json.loads(line) for line in options.tasks.read_text().splitlines()]
    known = file.read_text().splitlines(keepends=True) if file.exists() else []
    whole = [line for line in known if line.endswith("\n")]
    file.write_text("".join(whole))
    done = {each["id"]: each for each in map(json.loads, whole)}
    limit = asyncio.Semaphore(PARALLEL)
    async with Client() as cove:
        with file.open("a") as out:

            async def one(task: dict[str, Any]) -> None:
                id, name = task["id"], f"{batch}-{task['id']}"
                async with limit:
                    if id not in done:
                        done[id] = {"id": id, **await attempt(cove, name, task)}
                        out.write(json.dumps(done[id]) + "\n")
                        out.flush()
                        os.fsync(out.fileno())  # Only what is on record is removed.
                        print(id, done[id]["outcome"], flush=True)
                    await remove(cove.workspaces.named(name))

            async with asyncio.TaskGroup() as group:
                for task in tasks:
                    group.create_task(one(task))
        name, committed = f"{batch}-results", Path(f"{batch}.commit")
        if not committed.exists():
            home = await cove.workspaces.create(
                options.repository, id=name, request_id=request_id(name)
            )
            committed.write_text(await commit(home, batch, [done[task["id"]] for task in tasks]))
        await remove(cove.workspaces.named(name))
        print("committed", committed.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
