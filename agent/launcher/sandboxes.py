"""The sandboxes of a node: started, watched, killed, and found again by the next launcher.

Each has a folder in the runtime directory with `meta` (its bwrap), `status` (what bwrap told) and
`err`. No process of it is believed by number alone.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from agent import SANDBOX_UID
from agent.inside.connection import EXHAUSTED
from agent.launcher import host
from agent.launcher.freezing import Freezing
from agent.launcher.start import Parts, is_agent, open_lock, start, start_time
from agent.protocol import SandboxSpec, SandboxStatus, State

_CHILD: Final = re.compile(rb'"child-pid": *(\d+)')
_PATIENCE: Final = 10.0
"""Seconds until a bwrap that says nothing is killed."""
_LAST_WORDS: Final = 2.0
"""The same when its sandbox has ended."""
_REMEMBERED: Final = 256
_LOOK: Final = 0.005
"""Seconds between two looks while something is on its way."""


class Sandbox:
    """One that was started and of which something may be left."""

    def __init__(self, uid: str, folder: Path, socket_path: Path) -> None:
        self.uid = uid
        self.folder = folder
        self.socket = socket_path
        self.started = time.time()
        self.agent_pid = 0
        self.ending = False
        self.lock = -1
        """Of its worktree: ours goes last, when the kernel has taken the mounts away as well."""
        self.then: list[Callable[[], None]] = []
        """Called when nothing is left."""
        self._deadline = time.monotonic() + _PATIENCE
        self._agent = -1
        self._monitor = -1

    def watch(self, pid: int) -> None:
        """`pid` is its bwrap. Raises OSError."""
        self._monitor = os.pidfd_open(pid)

    def adopt(self) -> None:
        """Find its bwrap again, if that lives."""
        try:
            meta = json.loads((self.folder / "meta").read_text())
            pid, began = int(meta["pid"]), int(meta["start"])
        except (OSError, ValueError, KeyError):
            return
        self.started = (self.folder / "meta").stat().st_mtime
        try:
            self.watch(pid)
        except OSError as error:
            if error.errno in EXHAUSTED:  # Nobody knows then whether it lives.
                raise
        if path := meta.get("lock"):
            with contextlib.suppress(OSError):
                self.lock = open_lock(path)
                fcntl.flock(self.lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if self._monitor >= 0 and start_time(pid) != began:
            os.close(self._monitor)
            self._monitor = -1

    def descriptors(self) -> Iterator[int]:
        """Readable when a process of it has ended."""
        yield from (each for each in (self._agent, self._monitor) if each >= 0)

    @property
    def settled(self) -> bool:
        """Nothing is expected but its end."""
        return self._agent >= 0 and not self.ending

    def look(self) -> bool:
        """See how it is. False when no process of it is left."""
        if not self.agent_pid:
            self._find_agent()
        was_there = self._agent >= 0
        self._agent, self._monitor = _alive(self._agent), _alive(self._monitor)
        if was_there and self._agent < 0:
            self._deadline = time.monotonic() + _LAST_WORDS
        if self._agent >= 0 and self.ending:
            kill(self._agent)
        elif self._monitor >= 0 and self._agent < 0 and time.monotonic() > self._deadline:
            kill(self._monitor)
        return self._agent >= 0 or self._monitor >= 0

    def _find_agent(self) -> None:
        try:
            told = _CHILD.search((self.folder / "status").read_bytes())
        except OSError:
            return
        if told is None:
            return
        pid = int(told[1])
        with contextlib.suppress(OSError):
            agent = os.pidfd_open(pid)
            if is_agent(pid, self.uid):
                self._agent, self.agent_pid = agent, pid
            else:
                os.close(agent)

    def unlock(self) -> None:
        if self.lock >= 0:
            os.close(self.lock)
        self.lock = -1

    def error(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "err").read_text(errors="replace")[-2000:]
        return ""


class Sandboxes:
    """All of a node. Nothing here waits: `tick` is called again while `patience` says so."""

    def __init__(self, runtime: Path, parts: Parts) -> None:
        self._sockets = runtime / "a"
        self._beside = runtime / "f"
        self._folders = runtime / "s"
        self._parts = parts
        self._known: dict[str, Sandbox] = {}
        self._errors: dict[str, str] = {}
        for folder in (self._sockets, self._beside, self._folders):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._freezing = Freezing(parts.cgroups)
        for folder in self._folders.iterdir():
            beside = (self._beside / folder.name).exists()
            sandbox = Sandbox(folder.name, folder, self._socket(folder.name, beside=beside))
            sandbox.adopt()
            self._known[folder.name] = sandbox
        self.thaw_all()
        for uid in parts.cgroups.leftovers() - set(self._known):
            with contextlib.suppress(OSError):
                self._freezing.thaw(uid, self._folders / uid)
            parts.cgroups.kill(uid)
            parts.cgroups.remove(uid)
        self.tick()

    def start(self, spec: SandboxSpec, then: Callable[[str], None]) -> None:
        """Start it unless it runs; then `then` is called with what went wrong, if anything."""
        self.tick()
        found = self._known.get(spec.uid)
        if found and found.ending:
            found.then.append(lambda: self.start(spec, then))
            return
        try:
            if not found:
                self._start(spec)
        except OSError as error:
            then(str(error))
        else:
            then("")

    def _socket(self, uid: str, *, beside: bool) -> Path:
        return (self._beside if beside else self._sockets) / uid

    def _start(self, spec: SandboxSpec) -> None:
        self._errors.pop(spec.uid, None)
        socket_path = self._socket(spec.uid, beside=spec.beside)
        sandbox = Sandbox(spec.uid, self._folders / spec.uid, socket_path)
        shutil.rmtree(sandbox.folder, ignore_errors=True)
        sandbox.folder.mkdir(mode=0o700)
        try:
            self._parts.cgroups.create(spec.uid, spec.limits)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                sandbox.socket.unlink(missing_ok=True)
                listener.bind(str(sandbox.socket))
                sandbox.socket.chmod(0o600)
                user = self._parts.user(spec)
                if user not in (os.getuid(), SANDBOX_UID):
                    os.chown(sandbox.socket, user, user)  # So that who connects knows who answers.
                listener.listen(512)
                if spec.lock:
                    sandbox.lock = open_lock(spec.lock)
                # What it is watched by must not be wanting when it is there.
                spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    pid = start(spec, self._parts, listener, sandbox.folder, sandbox.lock)
                finally:
                    os.close(spare)
                try:
                    sandbox.watch(pid)
                except OSError:
                    os.kill(pid, signal.SIGKILL)
                    raise
        except OSError:
            sandbox.unlock()
            self._clean(sandbox)
            raise
        self._known[spec.uid] = sandbox

    def kill(self, uid: str, then: Callable[[], None]) -> bool:
        """Kill it; `then` is called when nothing is left. False when nothing was there.

        Raises OSError when it cannot be now: nothing has changed.
        """
        sandbox = self._known.get(uid)
        if sandbox is None:
            return False
        self._freezing.thaw(uid, sandbox.folder)  # Frozen, it would not die everywhere.
        sandbox.ending = True
        sandbox.then.append(then)
        sandbox.look()
        return True

    def freeze(self, uid: str, seconds: float, then: Callable[[bool, str], None]) -> None:
        """Hold every process of it still, at most for so long.

        `then` is called when they are, with whether there are any, and what went wrong.
        """
        sandbox = self._known.get(uid)
        if sandbox is None:
            then(False, "")
        elif sandbox.ending:
            sandbox.then.append(lambda: then(False, ""))
        else:
            self._freezing.freeze(uid, sandbox.folder, seconds, lambda error: then(True, error))

    def thaw(self, uid: str) -> bool:
        """Let it go on; false when it was not frozen. Raises OSError."""
        sandbox = self._known.get(uid)
        return sandbox is not None and self._freezing.thaw(uid, sandbox.folder)

    def thaw_all(self) -> None:
        """So that none waits for a launcher."""
        for uid in self._known:
            with contextlib.suppress(OSError):
                self.thaw(uid)

    def uids(self) -> list[str]:
        return sorted(self._known)

    def inspect(self, uid: str) -> SandboxStatus:
        sandbox = self._known.get(uid)
        if sandbox is None:
            return SandboxStatus(uid=uid, error=self._errors.get(uid, ""))
        return SandboxStatus(
            uid=uid,
            state=State.ENDING if sandbox.ending else State.RUNNING,
            socket=str(sandbox.socket),
            pid=sandbox.agent_pid,
            started=sandbox.started,
            cgroups=tuple(map(str, self._parts.cgroups.paths(uid))),
        )

    def descriptors(self) -> Iterator[int]:
        """To be polled for reading: a process has ended then."""
        for sandbox in self._known.values():
            yield from sandbox.descriptors()

    def patience(self) -> float | None:
        """Seconds until `tick` should be called; None when only a descriptor can tell."""
        settled = all(each.settled for each in self._known.values())
        return self._freezing.patience() if settled else _LOOK

    def tick(self) -> None:
        """See what has changed, and clean up after those that ended."""
        for sandbox in list(self._known.values()):
            if not sandbox.look():
                self._end(sandbox)
        agents = {each.uid: each.agent_pid for each in self._known.values() if not each.ending}
        self._freezing.tick(agents)
        _reap()

    def _end(self, sandbox: Sandbox) -> None:
        sandbox.ending = True
        _reap()
        if said := sandbox.error():
            self._errors[sandbox.uid] = host.remedy(said, self._parts.mode)
            while len(self._errors) > _REMEMBERED:
                del self._errors[next(iter(self._errors))]
        sandbox.unlock()
        if not self._clean(sandbox):
            return
        del self._known[sandbox.uid]
        for then in sandbox.then:
            then()

    def _clean(self, sandbox: Sandbox) -> bool:
        """Remove what it had outside; false when a group is still busy."""
        sandbox.socket.unlink(missing_ok=True)
        if not self._parts.cgroups.remove(sandbox.uid):
            self._parts.cgroups.kill(sandbox.uid)
            return False
        shutil.rmtree(sandbox.folder, ignore_errors=True)
        return True


def kill(pidfd: int) -> None:
    """Kill a process, which may have ended, and been reaped by its parent, since it was seen."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _alive(pidfd: int) -> int:
    """The descriptor, or -1, and closed, when its process has ended."""
    if pidfd < 0:
        return -1
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if poll.poll(0):
        os.close(pidfd)
        return -1
    return pidfd


def _reap() -> None:
    """Take what has ended of us, also what was left to us as their reaper."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
