"""Removing what somebody hostile has made."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.removal import remove_tree
from tests.agent.node import Node, close, command, ended, python, until
from tests.support.suite import children

DEEP = """
import os, sys
os.chdir(sys.argv[1])
for _ in range(2500):
    os.mkdir("dd")
    os.chdir("dd")
    open("f", "w").close()
os.chmod(".", 0)
"""

SHUFFLE = """
import os, sys
os.chdir(sys.argv[1])
print("begun", flush=True)
while True:
    for call, names in (
        (os.makedirs, ("a/b/c/d",)),
        (os.rename, ("a/b/c", "c")),
        (os.symlink, (sys.argv[2], "a/b/c")),
        (os.rename, ("a/b/c", "a/l")),
        (os.rename, ("c", "a/b/c")),
    ):
        try:
            call(*names)
        except OSError:
            pass
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def script(code: str, *arguments: Path) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-I", "-c", code, *map(str, arguments)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE)


def test_depth_has_no_limit(tmp_path: Path, parent: int) -> None:
    (tmp_path / "x").mkdir()
    with script(DEEP, tmp_path / "x") as making:
        assert making.wait() == 0
    remove_tree(b"x", parent, unlock=True)
    assert list(tmp_path.iterdir()) == []
    assert not [each for each in _opened() if each.startswith(f"{tmp_path}/")]


def _opened() -> list[str]:
    """What this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(each.readlink()))
    return found


def test_many_directories_beside_each_other_go(tmp_path: Path, parent: int) -> None:
    for number in range(700):
        (tmp_path / "x" / f"{number}" / "y").mkdir(parents=True)
        (tmp_path / "x" / f"{number}" / "z").touch()
    deep = tmp_path / "x" / "/".join("d" * 80)
    for number in range(20):
        (deep / f"{number}" / "y").mkdir(parents=True)
    remove_tree(b"x", parent)
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path, parent: int) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "y" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to("kept")
    remove_tree(b"x", parent)
    for unlock in (False, True):
        with pytest.raises(NotADirectoryError):
            remove_tree(b"link", parent, unlock=unlock)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "link"]
    assert (tmp_path / "kept" / "file").exists()


def test_whoever_shuffles_meanwhile_leads_it_nowhere(tmp_path: Path, parent: int) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "x").mkdir()
    with script(SHUFFLE, tmp_path / "x", tmp_path / "kept") as shuffling:
        try:
            assert shuffling.stdout
            shuffling.stdout.readline()
            for _ in range(20):
                try:
                    remove_tree(b"x", parent)
                except OSError as error:
                    assert error.errno in (errno.ENOTEMPTY, errno.ENOENT)  # noqa: PT017
                (tmp_path / "x").mkdir(exist_ok=True)
                assert (tmp_path / "kept" / "file").exists()
        finally:
            shuffling.kill()
    remove_tree(b"x", parent)
    assert (tmp_path / "kept" / "file").exists()


async def test_the_agent_removes_a_deep_directory(node: Node) -> None:
    deep = DEEP.replace("sys.argv[1]", "'/workspace/x'").replace("os.chmod", "os.access")
    async with node.sandbox() as box, box.agent() as agent:
        (box.worktree / "x").mkdir()
        os.chown(box.worktree / "x", node.sandbox_uid, node.sandbox_uid)
        done = await box.run(*python(deep))
        assert done.result.number == 0, done.stderr
        await agent.remove(b"x", recursive=True)
        assert list(box.worktree.iterdir()) == []


def holds_pipes(pid: int) -> bool:
    """Whether a process has any open, as far as that can be seen: by root."""
    if os.geteuid() != 0:
        return False
    try:
        opened = Path(f"/proc/{pid}/fd").iterdir()
        return any(str(each.readlink()).startswith("pipe:") for each in opened)
    except FileNotFoundError:  # It has yet to stop.
        return True


async def test_a_long_removal_keeps_nothing_of_commands_open(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        await box.run("sh", "-c", "mkdir x && cd x && seq 10000 | xargs touch")
        sinks = box.sinks("cat")
        await agent.start("cat", command("cat", stdin=True), sinks)
        before = set(children(agent.pid))
        removing = asyncio.create_task(agent.remove(b"x", recursive=True))
        (child,) = await until(lambda: set(children(agent.pid)) - before)
        os.kill(child, signal.SIGSTOP)
        while holds_pipes(child):  # It was forked in this moment.
            os.kill(child, signal.SIGCONT)
            await asyncio.sleep(0)
            os.kill(child, signal.SIGSTOP)
        await agent.write_input("cat", 0, b"the end", close=True)
        assert (await ended(sinks)).stdout == b"the end"
        assert not removing.done()
        os.kill(child, signal.SIGCONT)
        await removing
        assert list(box.worktree.iterdir()) == []
        close(sinks)
