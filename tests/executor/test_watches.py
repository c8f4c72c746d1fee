"""Changes of files in a real sandbox, told as they happen; what is lost is told too."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.inside.watching import MOST
from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from tests.executor.answers import failing
from tests.executor.node import Caller, Node, Sandbox, refused
from tests.executor.test_archives import archive, unpack
from tests.executor.test_files import write

Code = grpc.StatusCode
Kind = pb.FileChange
CREATED, MODIFIED, REMOVED = Kind.KIND_CREATED, Kind.KIND_MODIFIED, Kind.KIND_REMOVED


class Watcher:
    """What a watch told."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.seen: list[Any] = []

    async def next(self) -> Any:
        async with asyncio.timeout(20):
            return await self.call.read()

    async def until(self, kind: int, path: str) -> pb.FileChange:
        """Read up to that change."""
        while True:
            event = await self.next()
            assert event is not grpc.aio.EOF
            self.seen.append(event)
            if (event.change.kind, event.change.path) == (kind, path):
                change: pb.FileChange = event.change
                return change


@asynccontextmanager
async def watching(caller: Caller, box: Sandbox, path: str = "") -> AsyncIterator[Watcher]:
    call: Any = caller.files.WatchFiles(pb.WatchFilesRequest(handle=box.handle, path=path))
    try:
        while (first := await call.read()).HasField("heartbeat"):  # It takes its time to begin.
            pass
        assert first.HasField("started")
        yield Watcher(call)
    finally:
        call.cancel()


async def test_changes_are_told_at_any_depth(caller: Caller, box: Sandbox) -> None:
    await caller.execute(box, "mkdir -p old/deep; echo 1 > old/deep/f")
    async with watching(caller, box) as watch:
        await caller.execute(box, "echo 2 >> old/deep/f; mkdir -p new/deep; echo 1 > new/deep/g")
        await watch.until(MODIFIED, "old/deep/f")
        await watch.until(CREATED, "new/deep/g")
        await caller.execute(box, "mv old there; echo 3 > there/deep/f; rm new/deep/g")
        moved = await watch.until(Kind.KIND_MOVED, "there")
        assert (moved.previous_path, moved.directory) == ("old", True)
        await watch.until(MODIFIED, "there/deep/f")
        await watch.until(REMOVED, "new/deep/g")
        await write(caller, box, "written", b"x")
        await watch.until(CREATED, "written")
        await unpack(caller, box, "there", archive(("in/x", b"x"), ("deep/y", b"y")))
        await watch.until(CREATED, "there/deep/y")
        await watch.until(CREATED, "there/in/x")
        await caller.execute(box, "mv there /home/cove/; mkdir last; echo > \"$(printf 'l\\377')\"")
        await watch.until(REMOVED, "there")
        while (event := await watch.next()).change.raw_path != b"l\xff":
            watch.seen.append(event)
        assert not [each for each in watch.seen if ".cove-" in str(each)]
        await caller.execute(box, "touch .cove-notes")
        await watch.until(CREATED, ".cove-notes")


async def test_a_heartbeat_comes_and_the_end_is_told(caller: Caller, box: Sandbox) -> None:
    await caller.execute(box, "mkdir d")
    async with watching(caller, box, "d") as watch:
        assert (await watch.next()).HasField("heartbeat")
        await caller.execute(box, "rmdir d")
        while not (event := await watch.next()).HasField("end"):
            pass
        assert event.HasField("end")
        assert await watch.next() is grpc.aio.EOF


async def test_what_cannot_be_watched_is_refused(caller: Caller, box: Sandbox) -> None:
    await caller.execute(box, "echo > file")
    for path, code, why in (
        ("none", Code.NOT_FOUND, Why.ERROR_REASON_FILE_NOT_FOUND),
        ("/etc", Code.INVALID_ARGUMENT, Why.ERROR_REASON_PATH_OUTSIDE),
        ("file", Code.FAILED_PRECONDITION, Why.ERROR_REASON_WRONG_FILE_TYPE),
    ):
        async with refused(code, why), watching(caller, box, path):
            pass


def test_who_may_watch_no_more_is_told_what_helps() -> None:
    """More directories than this user may watch, at first or later, or more queues."""
    if os.getuid() != 0:
        pytest.skip("a user namespace in which others' limits are low needs root")
    with tempfile.TemporaryDirectory(prefix="cw", dir="/tmp") as folder:
        argv = [sys.executable, "-m", "tests.executor.few_watches", folder]
        root = Path(__file__).parents[2]
        answer = subprocess.run(argv, cwd=root, stdout=subprocess.PIPE, timeout=100, check=True)
    seen = json.loads(answer.stdout)
    directories, queues = "watches too many directories", "too many queues"
    for how, path, why in (
        ("directories", "many", directories),
        ("grown", "few", directories),
        ("queues", "few", queues),
    ):
        told = seen[how]
        assert (told["code"], told["reason"]) == ("RESOURCE_EXHAUSTED", "WATCH_LIMIT")
        assert told["metadata"]["path"] == path
        assert why in told["metadata"]["why"]
        assert "fs.inotify.max_user_watches" in told["remedy"]
    assert seen["after"] == "x"  # Who was refused holds nothing.


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_more_directories_than_are_watched_at_once(caller: Caller, box: Sandbox) -> None:
    script = f"mkdir many; cd many; seq {MOST} | xargs mkdir"
    assert (await caller.execute(box, script)).execution.exit.code == 0
    async with failing() as answer, watching(caller, box):
        pass
    assert (answer.reason, answer.metadata["why"]) == ("WATCH_LIMIT", "too many directories")
    async with watching(caller, box, "many/1"):
        pass


@pytest.mark.long
async def test_a_slow_reader_is_told_that_it_missed_something(caller: Caller, box: Sandbox) -> None:
    async with watching(caller, box) as watch:
        # More than the kernel keeps and all that is on the way can hold.
        script = "mkdir d; cd d; seq -f %0200.0f 40000 | xargs touch"
        assert (await caller.execute(box, script)).execution.exit.code == 0
        kinds = set()
        while "overflow" not in kinds:
            kinds.add((await watch.next()).WhichOneof("event"))
        await caller.execute(box, "mkdir after; echo > after/all")
        await watch.until(CREATED, "after/all")  # It goes on, in new directories too.


async def test_a_watch_that_is_left_is_gone(node: Node, caller: Caller, box: Sandbox) -> None:
    for _ in range(40):  # More than there may be at once.
        async with watching(caller, box):
            pass


@pytest.mark.parametrize("script", ["kill -9 -1", "kill -STOP -1"])
async def test_a_command_can_end_a_watch_of_its_own_workspace_only(
    caller: Caller, box: Sandbox, script: str
) -> None:
    async with watching(caller, box) as watch:
        await caller.start(box, "evil", f"trap '' TERM; {script}; echo > x")
        if "9" in script:
            async with refused(Code.UNAVAILABLE, Why.ERROR_REASON_AGENT_UNAVAILABLE):
                while True:
                    await watch.next()
        await caller.wait(box, "evil")  # It would stop the next one, too.
    async with watching(caller, box):
        pass
