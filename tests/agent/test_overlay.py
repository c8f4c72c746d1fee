"""Sandboxes whose worktree is an overlay: as root and as an ordinary user."""

import asyncio
import fcntl
import os
import stat
import statistics
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent import overlay
from agent.launcher_client import LauncherError
from agent.protocol import Overlay, SandboxSpec, State
from tests.agent.node import Node, close, command, new_uid, python, until
from tests.agent.trees import Tree, lower, tree

MOVE = "import os; os.rename('/workspace/a', '/workspace/b')"


def plain(node: Node) -> Tree:
    return tree(node, lower(node, {"f": "f\n", "a/one": "1\n", "a/two": "2\n", "gone": "x\n"}))


async def last_words(node: Node, spec: SandboxSpec) -> str:
    """Why a sandbox does not start, whoever says so."""
    async with node.launcher() as launcher:
        try:
            await launcher.start(spec)
        except LauncherError as error:
            return str(error)
        try:
            return await launcher.last_words(spec.uid)
        finally:
            await launcher.kill(spec.uid)


def spec_of(made: Tree) -> SandboxSpec:
    return SandboxSpec(uid=new_uid(), overlay=made.layers, lock=str(made.lock))


async def test_what_is_below_is_read_and_what_is_written_lands_above(node: Node) -> None:
    made = plain(node)
    below = Path(made.lowers[0])
    async with made.sandbox() as box:
        script = "cat f a/one; echo more >> f; echo new > n; rm gone; chmod 755 a/two; stat -c %u n"
        done = await box.run("sh", "-c", script, cwd="/workspace")
        assert done.stdout == b"f\n1\n%d\n" % node.sandbox_uid
        assert done.stderr == b""
    assert (made.upper / "f").read_text() == "f\nmore\n"
    assert (made.upper / "n").stat().st_uid == node.sandbox_uid
    whiteout = (made.upper / "gone").lstat()
    assert stat.S_ISCHR(whiteout.st_mode)
    assert whiteout.st_rdev == 0
    assert (below / "f").read_text() == "f\n"
    assert (below / "gone").exists()
    assert stat.S_IMODE((made.upper / "a" / "two").stat().st_mode) == 0o755


async def test_what_was_written_is_there_after_the_sandbox_ended(node: Node) -> None:
    made = plain(node)
    async with made.sandbox() as box:
        await box.run("sh", "-c", "rm gone; echo 3 > a/three", cwd="/workspace")
    async with made.sandbox() as box:
        done = await box.run("sh", "-c", "ls . a", cwd="/workspace")
        assert done.stdout.split() == b".: a f a: one three two".split()


async def test_its_owner_can_copy_and_remove_all_of_it(node: Node) -> None:
    made = plain(node)
    async with made.sandbox() as box:
        await box.run("sh", "-c", "rm gone", cwd="/workspace")
    assert stat.S_IMODE(Path(made.layers.work, "work").stat().st_mode) == 0o700


async def test_a_directory_is_moved(node: Node) -> None:
    made = plain(node)
    async with made.sandbox() as box:
        renamed = await box.run(*python(MOVE))
        if node.mode == "root":
            assert renamed.result.number == 0, renamed.stderr
            mark = os.getxattr(made.upper / "b", "trusted.overlay.redirect")
            assert mark == b"a"
        else:
            assert b"Invalid cross-device link" in renamed.stderr
            moved = await box.run("mv", "a", "b", cwd="/workspace")
            assert moved.result.number == 0, moved.stderr
        done = await box.run("sh", "-c", "cat b/one b/two; ls -d a", cwd="/workspace")
        assert done.stdout == b"1\n2\n"
        assert done.result.number != 0


async def test_two_over_one_layer_do_not_see_each_other(node: Node) -> None:
    first = plain(node)
    second = tree(node, *first.lowers)
    async with first.sandbox() as one, second.sandbox() as two:
        await one.run("sh", "-c", "echo one > f; echo one > mine; rm -r a", cwd="/workspace")
        done = await two.run("sh", "-c", "cat f a/one; ls", cwd="/workspace")
        assert done.stdout.split() == b"f 1 a f gone".split()


async def test_the_topmost_of_64_layers_wins(node: Node) -> None:
    lowers = [lower(node, {f"own{n}": "", "all": f"{n}\n"}) for n in range(overlay.MOST_LOWERS)]
    made = tree(node, *lowers)
    async with made.sandbox() as box:
        done = await box.run("sh", "-c", "cat all; ls | wc -l", cwd="/workspace")
        assert done.stdout == b"0\n%d\n" % (overlay.MOST_LOWERS + 1)
    spec = spec_of(tree(node, *lowers, lowers[0]))
    assert "64 lower layers" in await last_words(node, spec)


async def test_layers_are_stacked_above_the_lower_ones(node: Node) -> None:
    made = plain(node)
    below = Path(made.lowers[0])
    async with made.sandbox() as box:
        await box.run("sh", "-c", "echo 1 > f; echo 1 > one; rm gone", cwd="/workspace")
    first = made.push()
    async with made.sandbox() as box:
        await box.run("sh", "-c", "echo 2 >> f; echo 2 > gone; rm one", cwd="/workspace")
    made.push()
    async with made.sandbox() as box:
        done = await box.run("sh", "-c", "cat f gone; ls", cwd="/workspace")
        assert done.stdout.split() == b"1 2 2 a f gone".split()
        await box.run("sh", "-c", "echo 3 > f", cwd="/workspace")
    assert (below / "f").read_text() == "f\n"
    assert (below.parent / first / "f").read_text() == "1\n"
    assert (made.upper / "f").read_text() == "3\n"
    other = replace(tree(node, *made.lowers), stacked=made.stacked)
    other.stack.write_text(made.stack.read_text())
    async with other.sandbox() as box:
        assert (await box.run("cat", "/workspace/f")).stdout == b"1\n2\n"


async def test_without_a_stack_there_is_none(node: Node) -> None:
    made = replace(plain(node), stacked=str(node.folder / "l"))
    for _ in range(2):
        async with made.sandbox() as box:
            assert (await box.run("cat", "/workspace/f")).stdout == b"f\n"
        made.stack.touch()


async def test_the_stack_is_read_when_the_lock_is_had(node: Node) -> None:
    made = plain(node)
    (made.upper / "f").write_text("pushed\n")
    made.stacked = str(node.folder / "l")
    with made.lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        async with made.sandbox() as box:
            running = asyncio.ensure_future(box.run("cat", "/workspace/f"))
            async with node.launcher() as launcher:
                assert (await launcher.inspect(box.uid)).pid == 0
            made.push()
            fcntl.flock(file, fcntl.LOCK_UN)
            assert (await running).stdout == b"pushed\n"
    assert list(made.upper.iterdir()) == []


async def test_64_layers_in_all(node: Node) -> None:
    made = plain(node)
    for _ in range(overlay.MOST_LOWERS - 1):
        made.push()
    async with made.sandbox() as box:
        assert (await box.run("cat", "/workspace/f")).stdout == b"f\n"
    made.push()
    assert "64 lower layers" in await last_words(node, spec_of(made))


@pytest.mark.parametrize(
    "text", ["../escape\n", "/etc\n", "a\n", "\n", "UPPERUPPERUPPERU\n", "a" * 2000, "\xff\n"]
)
async def test_a_stack_that_names_something_else_is_refused(node: Node, text: str) -> None:
    made = plain(node)
    made.push()
    made.stack.write_text(text)
    assert "not a stack" in await last_words(node, spec_of(made))


async def test_a_stack_or_a_layer_that_is_a_symlink_is_refused(node: Node) -> None:
    made = plain(node)
    layer = Path(made.stacked or node.folder / "l") / made.push()
    layer.rename(f"{layer}.real")
    layer.symlink_to(f"{layer}.real")
    assert "symlink" in await last_words(node, spec_of(made))
    layer.unlink()
    Path(f"{layer}.real").rename(layer)
    made.stack.rename(made.home / "real")
    made.stack.symlink_to(made.home / "real")
    assert "ymbolic" in await last_words(node, spec_of(made))


@pytest.mark.parametrize("missing", ["layer", "upper"])
async def test_what_git_was_interrupted_at_is_told(node: Node, missing: str) -> None:
    made = plain(node)
    name = made.push()
    target = made.upper if missing == "upper" else node.folder / "l" / name
    target.rename(f"{target}.away")
    told = await last_words(node, spec_of(made))
    assert "git was interrupted" in told
    assert "try again" in told
    Path(f"{target}.away").rename(target)
    async with made.sandbox() as box:
        assert (await box.run("cat", "/workspace/f")).stdout == b"f\n"


async def test_a_path_may_hold_what_separates_options(node: Node) -> None:
    strange = node.directory(f"l/a:b,c\\d={new_uid()}")
    (strange / "f").write_text("strange\n")
    async with tree(node, str(strange)).sandbox() as box:
        assert (await box.run("cat", "/workspace/f")).stdout == b"strange\n"


async def test_the_mount_is_seen_nowhere_else_and_goes_with_the_sandbox(node: Node) -> None:
    made = plain(node)
    before = Path("/proc/self/mountinfo").read_text()
    async with made.sandbox() as box, made.node.launcher() as launcher:
        inside = (await box.run("grep", " /workspace ", "/proc/self/mountinfo")).stdout.decode()
        assert " overlay " in inside
        assert {"nosuid", "nodev", "rw"} <= set(inside.split()[5].split(","))
        assert str(node.folder) not in inside
        assert Path("/proc/self/mountinfo").read_text() == before
        other = await launcher.inspect(box.uid)
        launchers = Path(f"/proc/{node.process and node.process.pid}/mountinfo").read_text()
        assert "workspace" not in launchers
        assert list(made.upper.iterdir()) == []
        await launcher.kill(box.uid)
        assert other.pid
    # The kernel holds the directory for as long as it is mounted anywhere.
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not made.locked()


async def test_only_the_upper_layer_is_writable(node: Node) -> None:
    made = plain(node)
    (made.outside / "head").write_text("{}")
    async with made.sandbox() as box:
        done = await box.run("sh", "-c", "cat /.cove/git/head; echo x > /.cove/git/head")
        assert done.stdout == b"{}"
        assert b"Read-only" in done.stderr


async def test_the_lock_is_held_until_the_sandbox_is_gone(node: Node) -> None:
    made = plain(node)
    assert not made.locked()
    async with made.sandbox() as box, node.launcher() as launcher:
        await box.run("true")
        assert made.locked()
        async with box.agent() as agent:
            outer = int(Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(outer, 9)
            await until(lambda: not Path(f"/proc/{outer}").exists())
            assert made.locked()
        assert (await box.run("echo", "on")).stdout == b"on\n"
        await launcher.kill(box.uid)
        assert not made.locked()


async def test_the_lock_is_free_only_when_the_last_process_has_ended(own_node: Node) -> None:
    """Without a launcher: bwrap outlives all processes of the sandbox, and holds it too."""
    node = own_node
    made = plain(node)
    hog = "i=0; while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done; wait"
    async with made.sandbox() as box:
        sinks = box.sinks("hog")
        async with box.agent() as agent:
            await agent.start("hog", command("sh", "-c", hog), sinks)
            pid = agent.pid
        close(sinks)
        pids = await until(lambda: _enough(_members(pid), 60))
        node.kill()
        assert made.locked()
        os.kill(pid, 9)
        with made.lock.open() as file:
            await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
            assert not [each for each in pids if _alive(each)]


def _enough(found: list[int], count: int) -> list[int]:
    return found if len(found) >= count else []


def _members(pid: int) -> list[int]:
    """All processes in the pid namespace of one."""
    space = Path(f"/proc/{pid}/ns/pid").readlink()
    found = []
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdigit() and (each / "ns" / "pid").readlink() == space:
                found.append(int(each.name))
        except OSError:
            continue
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_no_command_has_the_lock(node: Node) -> None:
    made = plain(node)
    script = (
        "import os\n"
        "for each in os.listdir('/proc/self/fd'):\n"
        "    try: print(os.readlink('/proc/self/fd/' + each))\n"
        "    except OSError: pass\n"
        "try: print(os.listdir('/proc/1/fd'))\n"
        "except OSError as error: print(error)\n"
    )
    async with made.sandbox() as box:
        done = await box.run(*python(script))
        assert b"lock" not in done.stdout
        assert b"Permission denied" in done.stdout


@pytest.mark.long
async def test_a_start_waits_for_git_and_then_gives_up(node: Node) -> None:
    made = plain(node)
    with made.lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        async with made.sandbox() as box:
            running = asyncio.ensure_future(box.run("cat", "/workspace/f"))
            async with node.launcher() as launcher:
                assert (await launcher.inspect(box.uid)).pid == 0
            fcntl.flock(file, fcntl.LOCK_UN)
            assert (await running).stdout == b"f\n"
        fcntl.flock(file, fcntl.LOCK_EX)
        spec = spec_of(made)
        async with node.launcher() as launcher:
            await launcher.start(spec)
            told = ""
            while not told:
                told = await launcher.last_words(spec.uid)
        assert "git holds the lock" in told


@pytest.mark.long
async def test_one_that_waits_for_its_lock_keeps_no_other_lock(node: Node) -> None:
    first, second = plain(node), plain(node)
    async with first.sandbox() as one, node.launcher() as launcher:
        await one.run("true")
        with second.lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            async with second.sandbox():
                await launcher.kill(one.uid)
                await until(lambda: not first.locked())


async def test_another_launcher_holds_the_lock_as_well(own_node: Node) -> None:
    node = own_node
    made = plain(node)
    async with made.sandbox() as box:
        await box.run("sh", "-c", "echo kept > /workspace/n")
        node.kill()
        assert made.locked()
        node.start()
        async with node.launcher() as launcher:
            assert (await launcher.inspect(box.uid)).state is State.RUNNING
            assert (await box.run("cat", "/workspace/n")).stdout == b"kept\n"
            assert made.locked()
            await launcher.kill(box.uid)
        assert not made.locked()


@pytest.mark.parametrize("name", ["upper", "work", "lock", "lower"])
async def test_a_symlink_is_refused(node: Node, name: str) -> None:
    made = plain(node)
    target = Path(made.lowers[0]) if name == "lower" else made.home / name
    target.rename(f"{target}.real")
    target.symlink_to(f"{target}.real")
    assert "symlink" in (await last_words(node, spec_of(made))).lower() or name == "lock"
    assert "ymbolic" in (await last_words(node, spec_of(made))) or name != "lock"


async def test_a_lock_that_is_no_file_is_refused(node: Node) -> None:
    made = plain(node)
    made.lock.unlink()
    os.mkfifo(made.lock)
    assert "not a file" in await last_words(node, spec_of(made))
    made.lock.unlink()
    assert "No such file" in await last_words(node, spec_of(made))


async def test_marks_of_the_other_kind_are_refused(node: Node) -> None:
    made = plain(node)
    other = overlay.USER if node.mode == "root" else overlay.TRUSTED
    spec = replace(spec_of(made), overlay=replace(made.layers, xattrs=other))
    assert f"of the kind {other}" in await last_words(node, spec)


async def test_a_start_costs_about_what_one_without_overlay_costs(node: Node) -> None:
    made = plain(node)
    took: dict[str, list[float]] = {"overlay": [], "plain": []}
    for _ in range(15):
        for kind, times in took.items():
            began = time.perf_counter()
            making = made.sandbox() if kind == "overlay" else node.sandbox()
            async with making as box, box.agent():
                times.append(time.perf_counter() - began)
    ratio = statistics.median(took["overlay"]) / statistics.median(took["plain"])
    print(f"{node.mode}: activation overlay / plain {ratio:.2f}")  # noqa: T201
    assert ratio < 3


def test_specs_of_the_version_before_are_read(node: Node) -> None:
    old = {"uid": "a", "worktree": "/w", "limits": {"pids": 3}, "mounts": [], "shm_bytes": 1}
    assert SandboxSpec.from_json(old).worktree == "/w"
    assert {"overlay", "lock"}.isdisjoint(SandboxSpec(uid="a", worktree="/w").to_json())
    spec = SandboxSpec(
        uid="a", overlay=Overlay(lowers=("/l",), upper="/u", work="/w", xattrs="user"), lock="/k"
    )
    assert SandboxSpec.from_json(spec.to_json()) == spec
    assert {"stack", "layers"}.isdisjoint(spec.to_json()["overlay"])
    assert spec.overlay
    stacked = replace(spec, overlay=replace(spec.overlay, stack="/s", layers="/ls"))
    assert SandboxSpec.from_json(stacked.to_json()) == stacked


def test_the_probe_tells_whether_overlays_work_and_leaves_nothing(node: Node) -> None:
    folder = node.directory(f"p/{new_uid()}")
    program = str(node.code / "agent" / "overlay.py")
    drop = node.drop() if node.mode == "user" else []
    argv = [*drop, node.python, "-I", "-S", program, "probe"]
    if node.mode == "root":
        assert overlay.probe(folder) == ""
    told = subprocess.run([*argv, str(folder)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    assert list(folder.iterdir()) == []
    told = subprocess.run([*argv, "/proc"], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert told.stdout
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
