"""Whether what clients were told is so."""

import asyncio
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

from cove import status
from cove.client import Client
from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk, Exit, Gap
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1.registry_pb2 import Environment
from cove.workspace import Workspace
from tests.chaos.journal import Ended, Fate, Held

State = pb.Workspace.State
AT_REST: Final = (
    Environment.STATE_READY,
    Environment.STATE_SUSPENDED,
    Environment.STATE_DELETED,
    Environment.STATE_FAILED,
)


def half_there(records: list[Environment]) -> list[str]:
    """Of the records of the registry, those that are under way, or failed without saying why."""
    return [
        f"{each.name} {Environment.State.Name(each.state)} "
        f"{Environment.Operation.Name(each.operation)} {each.failure.message}"
        for each in records
        if each.state not in AT_REST
        or each.operation != Environment.OPERATION_NONE
        or (each.state == Environment.STATE_FAILED and not each.failure.reason)
    ]


async def wrong_with(held: Held, client: Client, state: Path) -> list[str]:
    """What is not as its client was told. What was kept is brought back for that."""
    try:
        workspace = await client.workspaces.get(held.id)
        if held.fate is Fate.KEPT:
            if workspace.message.state != State.STATE_DELETED:
                return [f"{held.id}: deleted, and {State.Name(workspace.message.state)}"]
            workspace = await client.workspaces.undelete(held.id)
    except status.NotFound:
        return [f"{held.id}: lost"] if held.fate in (Fate.THERE, Fate.KEPT) else []
    if held.fate is Fate.GONE:
        return [f"{held.id}: gone, and {State.Name(workspace.message.state)}"]
    if held.uid and workspace.message.uid != held.uid:
        return [f"{held.id}: {held.uid} became {workspace.message.uid}"]
    if workspace.message.state != State.STATE_READY:
        if held.fate is Fate.UNSURE and workspace.message.state == State.STATE_DELETED:
            return []
        return [f"{held.id}: {State.Name(workspace.message.state)} {workspace.message.failure}"]
    try:
        found = [
            *await _wrong_files(held, workspace),
            *await _wrong_runs(held, workspace),
            *await _half_run(held, workspace),
            *await _wrong_commits(held, workspace, state),
        ]
    except status.DeadlineExceeded:
        raise
    except status.CoveError as error:
        found = [f"{type(error).__name__} {error.reason} {error}"]
    return [f"{held.id}: {each}" for each in found]


async def _wrong_files(held: Held, workspace: Workspace) -> list[str]:
    wrong = []
    for path, content in held.files.items():
        try:
            if await workspace.read(path) != content:
                wrong.append(f"{path} has another content")
        except status.NotFound:
            wrong.append(f"{path} is lost")
    return wrong


async def _wrong_runs(held: Held, workspace: Workspace) -> list[str]:
    """Ends and outputs are as told; what ended ran once, and nothing twice."""
    wrong = []
    try:
        lines = Counter((await workspace.read("ran")).decode(errors="replace").split("\n"))
    except status.NotFound:
        lines = Counter()
    wrong += [f"{mark} ran {lines[mark]} times" for mark in held.ran if lines[mark] != 1]
    wrong += [f"{mark} ran {lines[mark]} times" for mark in held.marks if lines[mark] > 1]
    if held.uid:  # Else it is not known whether `marks` has all of those that it is a fork of.
        strange = [each for each in lines if each.startswith("x-") and len(each) == 38]
        wrong += [f"{mark} was never asked for" for mark in strange if mark not in held.marks]
    for mark, told in held.ended.items():
        try:
            now = await _as_told(workspace.executions.named(mark))
        except status.CoveError as error:
            wrong.append(f"{mark} ended with {told.reason}, now {error.reason} {error}")
            continue
        if now is None or (now.reason, now.code) != (told.reason, told.code):
            wrong.append(f"{mark} ended {told.reason} {told.code}, now {now}")
        elif told.whole and now != told:
            sizes = [(len(each.stdout), len(each.stderr)) for each in (told, now)]
            wrong.append(f"{mark}: {sizes[0]} bytes of output, now {sizes[1]}, {now.whole=}")
    return wrong


async def _as_told(execution: Execution) -> Ended | None:
    """Its end and output as they are now; None when there is no end."""
    written = {Chunk.STREAM_STDOUT: b"", Chunk.STREAM_STDERR: b""}
    whole = True
    async for event in execution.output():
        if isinstance(event, Chunk):
            written[event.stream] += event.data
        elif isinstance(event, Gap):
            whole = False
        elif isinstance(event, Exit):
            stdout, stderr = written.values()
            return Ended(str(event.WhichOneof("reason")), event.code, stdout, stderr, whole)
    return None


async def _half_run(held: Held, workspace: Workspace) -> list[str]:
    """Of what was asked for without an answer: it has ended, or never was; and another runs."""
    wrong = []
    for mark in held.asked - held.ended.keys():
        try:
            async with asyncio.timeout(30):
                await workspace.executions.named(mark).wait()
        except TimeoutError:
            wrong.append(f"{mark} does not end")
        except status.NotFound:
            continue
    if (now := await workspace.execute("echo", "here")).stdout != b"here\n":
        wrong.append(f"echo: {now.exit_status} {now.stdout!r} {now.stderr!r}")
    return wrong


async def _wrong_commits(held: Held, workspace: Workspace, state: Path) -> list[str]:
    """All are in the history, in order, with what was in them."""
    if not held.commits:
        return []
    wrong = []
    history = [commit.id async for commit in workspace.log()]
    at = [history.index(commit) if commit in history else -1 for commit, _ in held.commits]
    if -1 in at or at != sorted(at, reverse=True):
        wrong.append(f"commits {held.commits[at.index(-1) if -1 in at else 0][0]} are not in it")
    for commit, files in held.commits:
        for path, content in files.items():
            found = await _content(state, commit, path)
            if found != content:
                wrong.append(f"commit {commit} has another {path}")
    return wrong


async def _content(state: Path, commit: str, path: str) -> bytes | None:
    for repository in _repositories(state):
        done = _git(repository, "cat-file", "blob", f"{commit}:{path}")
        if done.returncode == 0:
            return done.stdout
    return None


def broken_repositories(state: Path) -> list[str]:
    """What `git fsck` says of each repository, where it says something is wrong."""
    wrong = []
    for repository in _repositories(state):
        done = _git(repository, "fsck", "--full", "--strict", "--no-dangling", "--no-progress")
        said = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        bad = [line for line in said if not line.startswith("notice: ")]  # Of HEAD, and no refs.
        if done.returncode or bad:
            wrong.append(f"{repository}: {done.returncode} {bad[:20]}")
    return wrong


def _repositories(state: Path) -> list[Path]:
    return sorted((state / "git" / "repositories").glob("*/*.git"))


def _git(repository: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    command = ["git", "-c", "safe.directory=*", f"--git-dir={repository}", *arguments]
    return subprocess.run(command, check=False, capture_output=True)
