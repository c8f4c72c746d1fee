"""Control groups of launchers that died: removed by the next one of the same state, and no others.

Where there are none, as for an ordinary user here, there is nothing to be seen.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.launcher.cgroups import group_name, places
from agent.protocol import Limits
from tests.agent import node as nodes
from tests.agent.node import Box, Node, new_uid

INTO = "import os, sys; open(sys.argv[1], 'w').write('0'); os.execv(sys.argv[2], sys.argv[2:])"
"""Begins a program in a control group."""


@pytest.fixture
def node() -> Iterator[Node]:
    yield from nodes.make("root")


def groups(runtime: Path) -> list[Path]:
    """Those of the launcher of a runtime directory."""
    return [each for each in places(group_name(runtime)) if each.exists()]


@contextmanager
def elsewhere() -> Iterator[str]:
    """A control group beside those of this process, as another session has one."""
    made = places(f"elsewhere-{new_uid()}")[0]
    made.mkdir()
    try:
        yield str(made / "cgroup.procs")
    finally:
        for each in made.glob("cove-*"):
            with suppress(OSError):
                each.rmdir()
        made.rmdir()


async def lone(node: Node, box: Box) -> int:
    """Kill its launcher; returns the pid of its agent, which goes on."""
    async with box.agent() as agent:
        pid = agent.pid
    node.kill()
    return pid


async def test_what_a_dead_launcher_left_is_removed_by_the_next_of_the_state(node: Node) -> None:
    async with node.sandbox() as box:
        os.kill(await lone(node, box), 9)
        before = node.runtime
        assert groups(before)
        node.place = "other"
        node.start()
        async with node.launcher():
            assert groups(node.runtime)
            assert not groups(before)


async def test_nobody_touches_what_lives(node: Node) -> None:
    """Neither the groups of a launcher that runs, nor of sandboxes whose launcher is dead."""
    other = Node("root", node.folder, node.python, place="other")
    async with node.sandbox() as box:
        other.start()
        async with other.launcher():
            assert groups(node.runtime)
        other.stop()
        pid = await lone(node, box)
        other.start()
        async with other.launcher():
            assert any((each / box.uid).exists() for each in groups(node.runtime))
        other.stop()
        assert (await box.run("echo", "on")).stdout == b"on\n"
        os.kill(pid, 9)
        await nodes.until(lambda: not Path(f"/proc/{pid}").exists())
    other.start()
    async with other.launcher():
        assert not groups(node.runtime)
    other.stop()
    assert not list((node.folder / "s" / "launcher" / "groups").glob(group_name(node.runtime)))


async def test_a_launcher_of_another_session_takes_over_all(node: Node) -> None:
    """Of sandboxes from elsewhere it finds the groups too: to freeze, to kill, to remove."""
    with elsewhere() as group:
        node.stop()
        node.wrapped = (sys.executable, "-c", INTO, group)
        node.start()
        async with node.sandbox() as box:
            await lone(node, box)
            node.wrapped = ()
            node.start()
            async with node.launcher() as launcher:
                found = (await launcher.inspect(box.uid)).cgroups
                assert any(each.startswith(str(Path(group).parent)) for each in found)
                assert await launcher.freeze(box.uid, 10)
                assert await launcher.thaw(box.uid)
                assert (await box.run("echo", "on")).stdout == b"on\n"
                assert await launcher.kill(box.uid)
            assert not any(Path(each).exists() for each in found)
        node.stop()
        assert not list(Path(group).parent.glob("cove-*"))


async def test_a_note_that_is_nonsense_is_left(node: Node) -> None:
    folder = node.folder / "s" / "launcher" / "groups"
    async with node.launcher():
        node.stop()
    for name, text in (("cove-00000000", "{}"), ("x", "nonsense"), ("y", '{"bases": ["/tmp"]}')):
        (folder / name).write_text(text)
    node.start()
    async with node.launcher():
        node.stop()
    left = {each.name for each in folder.iterdir()}
    assert left == {"x", "y", "cove-00000000", group_name(node.runtime)}


@pytest.mark.long
async def test_any_part_of_a_processor_can_be_a_limit(node: Node) -> None:
    """One that is too small for the kernel, and one that is more than a group above has."""
    async with node.launcher() as launcher:
        if (await launcher.facts()).cpu != "cgroup_v1":
            pytest.skip("no control groups of version 1 to limit processors with")
        for each in groups(node.runtime):
            if (quota := each / "cpu.cfs_quota_us").exists():
                quota.write_text("50000")
    for millis in (1, 9, 400, 1_000_000):
        async with node.sandbox(limits=Limits(cpu_millis=millis)) as box:
            assert (await box.run("true")).result.number == 0
