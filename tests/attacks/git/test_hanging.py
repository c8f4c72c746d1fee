"""What would make a reader of files wait, read without end, or give up: the rest is committed."""

import asyncio
import time
from collections.abc import Awaitable, Mapping

import pytest

from cove.git.v1 import git_pb2 as pb
from cove.status import CoveError
from cove.workspace import Workspace
from tests.attacks.git.attack import parameters
from tests.attacks.git.parts import Attacked

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOUND = 25.0
"""Seconds in which a commit leaves out what it must; on a machine that does other things too."""

DEEP = """
import os
for _ in range(4000):
    os.mkdir("dd")
    os.chdir("dd")
open("leaf", "w").write("x")
"""

# What is put at `bad`, and whether a commit has to tell that it left it out: git itself does
# not know what is neither file, link nor directory.
HANGING: Mapping[str, tuple[str, bool]] = {
    "a pipe": ("mkfifo bad", False),
    "a socket": ("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"bad\")'", False),
    "a pipe instead of a file": ("rm src/main.py; mkfifo src/main.py bad", False),
    "a file that may not be read": ("echo x > bad; chmod 0 bad", True),
    "a directory that may not be read": ("mkdir bad; echo x > bad/x; chmod 0 bad", False),
    "a directory that may not be entered": ("mkdir bad; echo x > bad/x; chmod 444 bad", False),
    "directories 4,000 levels deep": (f"mkdir bad; cd bad; python3 -c '{DEEP}'", False),
    "links in a ring": ("ln -s bad2 bad; ln -s bad bad2", False),
}

ALWAYS = ("a pipe", "a file that may not be read", "directories 4,000 levels deep")


async def fine(workspace: Workspace, path: str = "good") -> None:
    """What can be committed is, and status stands."""
    shown = await workspace.execute("git", "cat-file", "-e", f"HEAD:{path}")
    assert shown.exit_status == 0, shown.stderr
    assert (await workspace.status()).head_commit


async def committed(workspace: Workspace) -> pb.CreateCommitResponse:
    begin = time.monotonic()
    async with asyncio.timeout(BOUND):
        await workspace.status()
        async for _ in workspace.diff():
            pass
    async with asyncio.timeout(BOUND):
        done = await workspace.commit("What can be")
    assert time.monotonic() - begin < BOUND
    return done  # type: ignore[return-value]


@pytest.mark.parametrize("name", parameters(HANGING, ALWAYS))
async def test_the_rest_is_committed_in_bounded_time(name: str, workspace: Workspace) -> None:
    script, told = HANGING[name]
    planted = await workspace.execute("sh", "-ec", f"echo x > good; {script}")
    assert planted.exit_status == 0, planted.stderr
    done = await committed(workspace)
    assert not told or "bad" in {one.path for one in done.skipped}
    await fine(workspace)
    assert await workspace.delete(force=True) is None


async def test_a_file_of_eight_tebibytes_is_left_out(workspace: Workspace) -> None:
    await workspace.execute("sh", "-ec", "echo x > good; truncate -s 8T bad README.md")
    done = await committed(workspace)
    assert {"bad", "README.md"} <= {one.path for one in done.skipped}
    await fine(workspace)


@pytest.mark.parametrize(
    "change", parameters(["grows", "is made anew", "changes its kind"], ["changes its kind"])
)
async def test_a_file_that_changes_while_it_is_read_holds_up_nothing(
    change: str, workspace: Workspace
) -> None:
    loops = {
        "grows": "while :; do head -c 65536 /dev/zero >> bad; done",
        "is made anew": "while :; do echo $$ > new; mv new bad; rm bad; done",
        "changes its kind": "while :; do echo x > bad; rm bad; mkdir bad; rmdir bad; ln -s x bad;"
        " rm bad; mkfifo bad; rm bad; done",
    }
    await workspace.execute("sh", "-ec", "echo x > good; echo bad/ > .gitignore")
    running = await workspace.start("sh", "-c", f"ulimit -f 2000000; {loops[change]}")
    try:
        for number in range(3):
            await workspace.write(f"good{number}", b"x")
            await committed(workspace)
    finally:
        await running.delete(force=True)
    await fine(workspace)
    await fine(workspace, "good2")


async def test_pipes_where_git_reads_by_itself_are_told(workspace: Workspace) -> None:
    await workspace.execute(
        "sh", "-ec", "echo x > good; mkdir d; mkfifo .gitignore d/.gitattributes"
    )
    for call in (workspace.status, lambda: workspace.commit("What can be")):
        async with asyncio.timeout(BOUND):
            reason = await reason_of(call())
        assert reason in ("", "ERROR_REASON_WRONG_FILE_TYPE")


async def reason_of(call: Awaitable[object]) -> str:
    try:
        await call
    except CoveError as error:
        return error.reason
    return ""


async def test_sparse_files_where_git_reads_by_itself_hold_up_nothing(
    attacked: Attacked, workspace: Workspace
) -> None:
    await workspace.execute("sh", "-ec", "echo x > good; truncate -s 8T .gitignore .gitattributes")
    target = attacked.target(workspace)
    async for answer in target.all():
        assert answer.is_told, answer


async def test_devices_cannot_be_made(workspace: Workspace) -> None:
    done = await workspace.execute("sh", "-c", "mknod bad c 1 5; mknod bad b 8 0; test -e bad")
    assert done.exit_status != 0
