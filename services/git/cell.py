"""Runs git where it can do no harm: in a sandbox made for one command.

A cell sees the system's programs read-only and the directories it is given,
nothing else; it has no capabilities, no other processes and, unless it talks
to a remote, no network. It ends when the service ends.
"""

import asyncio
import os
import pwd
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent import SANDBOX_UID
from services.git.command import Command, Where, git
from services.git.entrance import Entrance, unavailable
from services.git.errors import GitTimedOut, OutputTooLarge, failed
from services.git.process import Program, Result, Running, TooMuchOutput

_LINKS: Final = ("bin", "sbin", "lib", "lib32", "lib64")
# Its zeroth word is KiB, the others are the command. Who has less already keeps that.
_LIMITED: Final = 'ulimit -v "$0" 2>/dev/null; exec "$@"'
_NETWORK_FILES: Final = (
    "/etc/ssl",
    "/etc/ca-certificates",
    "/etc/pki",
    "/etc/nsswitch.conf",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A user on the host that a cell runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A directory of the host and where the cell sees it."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one command may see and touch."""

    identity: Identity
    binds: Sequence[Bind] = ()
    lent: Sequence[Bind] = ()
    """Directories and files of others, reached with the rights that the identity has."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Small files that exist in the cell's memory alone, mode 0600: never on a disk."""
    directories: Sequence[str] = ()
    """Empty directories of the cell's memory."""
    cwd: str = "/"
    memory: int = 2 << 30
    """Bytes of address space that each of its processes may have."""
    network: bool = False


class Cells:
    """Makes cells. As root they run as users without rights, else as the service's own user.

    All directories that cells are given as binds lie below `homes`.
    """

    def __init__(self, homes: Sequence[Path], bwrap: Path | None = None) -> None:
        self._root = os.geteuid() == 0
        self._entrance = Entrance(homes, bwrap)
        self._works = False
        own = Identity(os.geteuid(), os.getegid())
        self.sandbox = Identity(SANDBOX_UID, SANDBOX_UID) if self._root else own
        """Owns worktrees; runs every command that looks at one."""
        self.keeper = Identity(SANDBOX_UID + 1, SANDBOX_UID + 1) if self._root else own
        """Owns repositories, which no sandbox may write."""

    async def __aenter__(self) -> "Cells":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._entrance.close()

    @property
    def privileged(self) -> bool:
        """Whether cells run as other users than the service."""
        return self._root

    async def probe(self) -> str:
        """Return git's version. Raises `CellUnavailable`, with the remedy, where no cell can be."""
        cell = Cell(identity=self.sandbox)
        result = await self.run(cell, git(Where(git_dir="/nonexistent"), "version"))
        if result.code != 0:
            raise unavailable(result.errors)
        self._works = True
        return result.output.decode().split()[2]

    async def require(self) -> None:
        """Probe unless that succeeded before."""
        if not self._works:
            await self.probe()

    async def run(
        self,
        cell: Cell,
        command: Command,
        stdin: bytes = b"",
        *,
        timeout: float = 60,
        limit: int = 64 << 20,
    ) -> Result:
        """Run to the end. Raises `GitTimedOut` and `OutputTooLarge`."""
        with timed_out_as(command.name):
            async with self.started(cell, command) as running, asyncio.timeout(timeout):
                return await running.finish(stdin, limit=limit)

    async def check(
        self,
        cell: Cell,
        command: Command,
        stdin: bytes = b"",
        *,
        timeout: float = 60,
        limit: int = 64 << 20,
    ) -> bytes:
        """As `run`, for a command that must succeed. Raises what `failed` makes if it does not."""
        result = await self.run(cell, command, stdin, timeout=timeout, limit=limit)
        if result.code != 0:
            raise failed(command.name, result.code, result.errors)
        return result.output

    @asynccontextmanager
    async def started(
        self,
        cell: Cell,
        command: Command,
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        descriptors: Sequence[int] = (),
    ) -> AsyncIterator[Running]:
        """Start a command; it is gone when the block ends."""
        await self._entrance.require()
        files = {target: _memory_file(data) for target, data in cell.files.items()}
        try:
            program = Program(
                argv=self._argv(cell, command, files),
                env=command.env,
                descriptors=[*files.values(), *descriptors],
                stdin=stdin,
                stdout=stdout,
            )
            running = await Running.start(program)
        finally:
            for descriptor in files.values():
                os.close(descriptor)
        try:
            yield running
        finally:
            await running.close()

    def _argv(self, cell: Cell, command: Command, files: Mapping[str, int]) -> list[str]:
        seen = self._entrance.path
        argv = [
            seen(self._entrance.bwrap),
            "--unshare-all",
            "--unshare-user",
            "--die-with-parent",
            "--new-session",
        ]
        argv += ["--cap-drop", "ALL", "--hostname", "cove"]
        if cell.network:
            argv.append("--share-net")
        argv += [*_system(), "--proc", "/proc", "--dev", "/dev"]
        for bind in cell.lent:
            argv += ["--bind" if bind.writable else "--ro-bind", str(bind.source), bind.target]
        if cell.binds or files:
            argv += ["--dir", "/run/cell"]
        for bind in cell.binds:
            argv += [
                "--bind" if bind.writable else "--ro-bind",
                seen(bind.source),
                bind.target,
            ]
        for directory in cell.directories:
            argv += ["--dir", directory]
        for target, descriptor in files.items():
            argv += ["--perms", "0600", "--file", str(descriptor), target]
        if cell.network:
            for path in _NETWORK_FILES:
                argv += ["--ro-bind-try", path, path]
        argv += ["--chdir", cell.cwd, "--", "sh", "-c", _LIMITED, str(cell.memory >> 10)]
        argv += command.argv
        identity = cell.identity
        return [*self._entrance.prefix(identity.uid, identity.gid), *argv]


@contextmanager
def timed_out_as(command: str) -> Iterator[None]:
    """Turn what a program may not do into failures that a caller understands."""
    try:
        yield
    except TimeoutError:
        raise GitTimedOut("git did not finish in time", command=command) from None
    except TooMuchOutput:
        raise OutputTooLarge("git's answer is too large", command=command) from None


def owner_of(path: Path) -> Identity:
    """The user that owns `path`, with the group that user has by default."""
    found = path.stat()
    with suppress(KeyError):
        return Identity(found.st_uid, pwd.getpwuid(found.st_uid).pw_gid)
    return Identity(found.st_uid, found.st_gid)


def _system() -> list[str]:
    argv = ["--ro-bind", "/usr", "/usr"]
    for name in _LINKS:
        path = Path("/", name)
        if path.is_symlink():
            argv += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            argv += ["--ro-bind", str(path), str(path)]
    argv += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    argv += ["--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]
    return [*argv, "--size", str(64 << 20), "--tmpfs", "/tmp"]  # noqa: S108 - the cell's own.


def _memory_file(data: bytes) -> int:
    descriptor = os.memfd_create("cove")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
