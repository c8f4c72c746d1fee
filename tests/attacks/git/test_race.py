"""Files and links that are exchanged while git looks at them: no file of the host comes in."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable

import pytest
from google.protobuf.message import Message

from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk
from cove.status import CoveError
from cove.workspace import Workspace
from tests.attacks.git.naive import PATH, Naive
from tests.attacks.git.parts import Attacked

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Exchanges, for ever, what an honest look finds for a way to the secrets: a directory, a directory
# above others, a file, a file of git and a changed file of the repository.
SWAP = """
import ctypes, os, sys
secrets = sys.argv[1]
swap = ctypes.CDLL(None).renameat2
pairs = []
def pair(name, target):
    os.symlink(target, name + "-link")
    pairs.append((os.fsencode(name), os.fsencode(name + "-link")))
def write(name):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w") as file:
        file.write("mine")
write("directory/file")
pair("directory", secrets)
write("above/secrets/file")
pair("above", os.path.dirname(secrets))
write("file")
pair("file", secrets + "/file")
write("sub2/.gitattributes")
pair("sub2/.gitattributes", secrets + "/file")
write("README.md")
pair("README.md", secrets + "/README.md")
print("begun", flush=True)
while True:
    for a, b in pairs:
        swap(-100, a, -100, b, 2)
"""
COMMAND = "git rm -rq --cached --ignore-unmatch directory above file; git add -A"


async def begun(execution: Execution) -> None:
    async with asyncio.timeout(30):
        async for event in execution.output():
            if isinstance(event, Chunk) and b"begun" in event.data:
                return
    raise AssertionError("it ended")


async def test_the_race_is_won_against_plain_git(naive: Naive) -> None:
    place = naive.arena.plain / "race"
    naive.run(["git", "clone", "-q", str(naive.origin), str(place)], naive.arena.plain)
    python = shutil.which("python3", path=PATH)
    assert python
    argv = naive.argv([python, "-c", SWAP, str(naive.arena.secrets)])
    process = subprocess.Popen(argv, cwd=place, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert await asyncio.to_thread(process.stdout.readline) == b"begun\n"
        end, found = time.monotonic() + 60, set[str]()
        while time.monotonic() < end and not found:
            await asyncio.to_thread(naive.run, ["sh", "-c", COMMAND], place)
            found = naive.arena.stolen_in(place / ".git")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
        shutil.rmtree(place, ignore_errors=True)
    assert found


@pytest.mark.parametrize(
    "seconds", [5, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(180)])]
)
async def test_the_race_is_never_won_against_cove(
    seconds: int,
    attacked: Attacked,
    workspace: Workspace,
    record_property: Callable[[str, object], None],
) -> None:
    swapping = await workspace.start("python3", "-c", SWAP, str(attacked.arena.secrets))
    await begun(swapping)
    kinds = {"directory": 0, "link": 0}
    done = {"status": 0, "diff": 0, "commit": 0}
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end or not all((*done.values(), *kinds.values())):
        assert time.monotonic() < end + 60, f"nothing succeeds, or is exchanged: {done} {kinds}"
        number += 1
        await workspace.write(f"n{number}", b"x")
        done["status"] += await tried(attacked, workspace.status())
        done["diff"] += await tried(attacked, diff(workspace))
        done["commit"] += await tried(attacked, workspace.commit("All that can be"))
        try:
            await workspace.read("directory/file")
            kinds["directory"] += 1
        except CoveError:
            kinds["link"] += 1
    assert not (await swapping.refresh()).HasField("exit")
    await swapping.delete(force=True)
    record_property("race", f"{seconds} s: {done}")
    assert not attacked.in_objects()
    assert not list(attacked.in_files())


async def diff(workspace: Workspace) -> list[Message]:
    return [event async for event in workspace.diff("base..work")]


async def tried(attacked: Attacked, call: Awaitable[Message | list[Message]]) -> int:
    """Whether it succeeded. A tree that changes all the time may be refused."""
    try:
        answer = await call
    except CoveError as error:
        failure = error
    else:
        parts = answer if isinstance(answer, list) else [answer]
        assert not attacked.arena.found_in([part.SerializeToString() for part in parts])
        return 1
    assert failure.reason != "ERROR_REASON_INTERNAL", failure
    assert not attacked.arena.found_in([repr(failure).encode()])
    return 0
