"""The sandboxes of a node: started, watched, killed, and found again by the next launcher.

Each has a folder in the runtime directory with `meta` (its bwrap), `status` (what bwrap told) and
`err`. No process of it is believed by number alone.
"""

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from agent import SANDBOX_UID
from agent.launcher import host
from agent.launcher.freezing import Freezing
from agent.launcher.sandbox import Sandbox
from agent.launcher.start import Parts, open_lock, start
from agent.protocol import SandboxSpec, SandboxStatus, State

_REMEMBERED: Final = 256
_LOOK: Final = 0.005
"""Seconds between two looks while something is on its way."""


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


def _reap() -> None:
    """Take what has ended of us, also what was left to us as their reaper."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
