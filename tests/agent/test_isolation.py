"""What a hostile program in a sandbox can reach: nothing but its own workspace."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from agent.client import AgentError, ErrorCode, PeerGone
from agent.protocol import Limits
from agent.record import ExitKind
from tests.agent.node import Node, close, command, ended, python, until

_ATTACKS = """
import ctypes, errno, json, os, resource, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    ctypes.set_errno(0)
    result = getattr(libc, name)(*args)
    return errno.errorcode.get(ctypes.get_errno(), "?") if result < 0 else "done"
def attempt(what):
    try:
        what()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
buffer = ctypes.create_string_buffer(16)
print(json.dumps({
    "ptrace": call("ptrace", 16, 1, 0, 0),
    "vm_readv": call("syscall", 310, 1, buffer, 1, buffer, 1, 0),
    "mem": attempt(lambda: open("/proc/1/mem", "r+b")),
    "environ": attempt(lambda: open("/proc/1/environ", "rb").read()),
    "root": attempt(lambda: os.listdir("/proc/1/root")),
    "fd": attempt(lambda: os.listdir("/proc/1/fd")),
    "prlimit": attempt(lambda: resource.prlimit(1, resource.RLIMIT_FSIZE, (0, 0))),
    "oom": attempt(lambda: open("/proc/1/oom_score_adj", "w").write("1000")),
    "pidfd_getfd": call("syscall", 438, os.pidfd_open(1), 3, 0),
    "unshare": call("unshare", 0x10000000),
    "mount": call("mount", b"none", b"/tmp", b"tmpfs", 0, b""),
    "setns": call("setns", os.open("/proc/self/ns/net", 0), 0),
    "keyctl": call("syscall", 250, 0, -3, 0),
    "bpf": call("syscall", 321, 0, 0, 0),
    "chroot": call("chroot", b"/tmp"),
    "setuid": call("setuid", 0),
    "clone3": call("syscall", 435, 0, 0),
    "connect": attempt(lambda: socket.create_connection(("192.0.2.1", 80), 1)),
    "usr": attempt(lambda: open("/usr/x", "w")),
    "etc": attempt(lambda: open("/etc/x", "w")),
    "agent": attempt(lambda: open("/.cove/lib/agent/x", "w")),
    "dev": attempt(lambda: open("/dev/x", "w")),
}))
"""


async def test_no_attack_on_pid_1_or_the_host_works(node: Node) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers of system calls are those of x86_64")
    async with node.sandbox() as box:
        done = await box.run(*python(_ATTACKS))
    told = json.loads(done.stdout)
    refusals = {"EPERM", "EACCES", "EROFS"}
    others = {"clone3": "ENOSYS", "connect": "ENETUNREACH", "setuid": "EINVAL"}
    wrong = {name for name, value in told.items() if value not in refusals}
    assert {name: told[name] for name in wrong} == others


async def test_signals_to_pid_1_are_ignored(node: Node) -> None:
    async with node.sandbox() as box:
        signals = "KILL STOP TERM INT TSTP HUP SEGV USR1 XCPU PIPE QUIT"
        await box.run("sh", "-c", f"for s in {signals}; do kill -$s 1; done")
        assert (await box.run("echo", "alive")).stdout == b"alive\n"


async def test_a_program_sees_its_workspace_and_little_else(node: Node) -> None:
    secret = node.folder / "secret"
    secret.write_text("secret")
    secret.chmod(0o644)
    async with node.sandbox() as box:
        done = await box.run(
            "sh", "-c", f"ls -A /; cat {secret} /etc/shadow /root/.bashrc; ls /home"
        )
        assert b"secret\n" not in done.stdout
        assert set(done.stdout.split()) <= set(
            b".cove bin cove dev etc home lib lib32 lib64 libx32 proc run sbin tmp usr var "
            b"workspace".split()
        )
        users = await box.run("sh", "-c", "id -un; cat /etc/hostname /etc/resolv.conf; hostname")
        assert users.stdout.split() == [b"cove", b"cove"]


async def test_environment_and_descriptors_are_what_was_given(node: Node) -> None:
    async with node.sandbox() as box:
        done = await box.run("env", env={"A": "1"})
        assert set(done.stdout.splitlines()) == {
            b"A=1",
            b"HOME=/home/cove",
            b"PATH=/usr/local/bin:/usr/bin:/bin",
        }
        listed = await box.run("ls", "/proc/self/fd")
        assert listed.stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is the listing itself.
        status = await box.run("cat", "/proc/self/status")
        fields = dict(
            line.split(b":\t", 1) for line in status.stdout.splitlines() if b":\t" in line
        )
        assert fields[b"CapEff"] == fields[b"CapBnd"] == b"0" * 16
        assert (fields[b"NoNewPrivs"], fields[b"Seccomp"]) == (b"1", b"2")
        # 32 and 33 belong to the C library: no program can reset what it was started with.
        assert int(fields[b"SigIgn"], 16) & ~(0b11 << 31) == 0


async def test_common_tools_work_inside(node: Node) -> None:
    async with node.sandbox() as box:
        script = "git init -q a && cd a && git status --short && python3 -c 'import threading, ssl'"
        done = await box.run("sh", "-ec", f"{script}; echo x | tee /dev/null; stat -c %U .")
    assert (done.result.number, done.stdout) == (0, b"x\ncove\n"), done.stderr


async def test_files_are_reached_in_the_workspace_only(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        await box.run(
            "sh",
            "-c",
            "ln -s /etc e; ln -s /proc/1/root p; ln -s ../usr u; mkdir d; "
            "ln -s d in; ln -s /workspace/d abs; ln -s loop loop; mkfifo pipe; echo x > d/f",
        )
        for path in (
            "e/passwd",
            "p/etc/passwd",
            "u/bin/sh",
            "/etc/passwd",
            "../etc/passwd",
            "d/../../usr",
            "/proc/self/environ",
            "/workspace/../etc/passwd",
        ):
            with pytest.raises(AgentError) as caught:
                await agent.open(path)
            assert caught.value.code is ErrorCode.PATH_OUTSIDE, path
        for path in ("d/f", "in/f", "abs/f", "/workspace/abs/../d/f", "./d//f"):
            descriptor = await agent.open(path)
            assert os.read(descriptor, 9) == b"x\n"
            os.close(descriptor)
        for path in ("loop", "pipe", "none"):
            with pytest.raises(AgentError) as caught:
                await agent.open(path)
            assert caught.value.code is ErrorCode.OS_ERROR
            assert caught.value.errno


async def test_files_can_be_made_moved_listed_and_removed(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        await agent.make_directory("a/b/c", parents=True)
        descriptor = await agent.open("a/f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
        os.write(descriptor, b"hello")
        os.close(descriptor)
        made = await agent.stat("a/f")
        assert (made.st_size, made.st_uid) == (5, node.sandbox_uid)
        await agent.rename("a/f", "a/b/g")
        descriptor = await agent.open("a/f", os.O_CREAT | os.O_WRONLY)
        os.close(descriptor)
        with pytest.raises(AgentError) as caught:
            await agent.rename("a/f", "a/b/g", replace=False)
        assert os.strerror(caught.value.errno) == "File exists"
        names = [entry.name for entry in await agent.list_directory("a")]
        assert names == [b"b", b"f"]
        with pytest.raises(AgentError):
            await agent.remove("a")
        await agent.remove("a", recursive=True)
        assert not (box.worktree / "a").exists()
        with pytest.raises(AgentError):
            await agent.remove("/workspace", recursive=True)


async def test_memory_limit_kills_the_command_not_the_agent(node: Node) -> None:
    if node.mode == "user":
        pytest.skip("an ordinary user has no control group here")
    async with node.sandbox(limits=Limits(memory_bytes=64 << 20)) as box:
        done = await box.run(*python("x = bytearray(200 << 20)"))
        assert (done.result.kind, done.result.number) == (ExitKind.SIGNAL, 9)
        assert (await box.run("echo", "alive")).stdout == b"alive\n"


async def test_a_fork_bomb_is_held_and_killed(node: Node) -> None:
    async with node.sandbox(limits=Limits(pids=40)) as box, box.agent() as agent:
        sinks = box.sinks("x")
        bomb = ":(){ :|:& };: 2>/dev/null"
        await agent.start("x", command("bash", "-c", bomb), sinks)
        await ended(sinks)
        close(sinks)
        async with node.launcher() as launcher:
            status = await launcher.inspect(box.uid)
            assert await launcher.kill(box.uid)
        assert not Path(f"/proc/{status.pid}").exists()


async def test_an_agent_that_was_killed_is_refused_and_gone(node: Node) -> None:
    async with node.sandbox() as box, node.launcher() as launcher:
        async with box.agent() as agent:
            pid = agent.pid
            os.kill(pid, 9)
            await until(agent.gone.is_set)
        with pytest.raises(PeerGone):
            async with box.agent():
                pass
        await launcher.last_words(box.uid)
        assert (await launcher.inspect(box.uid)).state == "absent"


async def test_nothing_is_left_of_a_sandbox(node: Node) -> None:
    async with node.sandbox() as box, node.launcher() as launcher:
        await box.run("sh", "-c", "setsid sleep 300 & setsid sleep 300 & true")
        status = await launcher.inspect(box.uid)
        assert await launcher.kill(box.uid)
        assert not await launcher.kill(box.uid)
        told = subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True).stdout
        assert box.uid.encode() not in told
        assert not any(Path(group).exists() for group in status.cgroups)
        assert str(node.folder) not in Path("/proc/self/mountinfo").read_text()
        assert not box.socket.exists()
        assert not (node.runtime / "s" / box.uid).exists()


async def test_nobody_inside_reaches_the_agents_socket(node: Node) -> None:
    async with node.sandbox() as box:
        script = "import socket; socket.socket(socket.AF_UNIX).connect('/proc/1/fd/3')"
        assert (await box.run(*python(script))).result.number == 1
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(box.socket))
            peer.send(b"\xff" * 4096)
            peer.settimeout(5)
            assert peer.recv(1) == b""
        assert (await box.run("true")).result.number == 0
