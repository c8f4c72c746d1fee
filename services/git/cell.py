"""Runs git where it can do no harm: in a sandbox, which is kept for commands with the same view.

A cell sees the system's programs read-only and the directories it is given,
nothing else; it has no capabilities, no processes but those of its view and, unless
it talks to a remote, no network. It ends when the service ends.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from agent import KEEPER_UID, SANDBOX_UID
from servicekit import tracing
from servicekit.metrics import Timed, untimed
from services.git import program
from services.git.command import Command, Where, git
from services.git.entrance import Entrance, unavailable
from services.git.errors import CellLost, GitTimedOut, OutputTooLarge, failed
from services.git.pool import Bounds, Pool, identities
from services.git.process import Program, Result, Running, TooMuchOutput, close_all, memory_file
from services.git.sandbox import MADE, Bind, Cell, Identity, owner_of, view
from services.git.warm import Warm
from services.git.within import frames
from services.git.within.wire import Payload

_MADE_SIZE: Final = 16 << 20
# Its zeroth word is KiB, the others are the command. Who has less already keeps that.
_LIMITED: Final = 'ulimit -v "$0" 2>/dev/null; exec "$@"'

__all__ = ["MADE", "Bind", "Cell", "Cells", "Identity", "owner_of", "timed_out_as"]


class Cells:
    """Makes cells. As root they run as users without rights, else as the service's own user.

    All directories that cells are given as binds lie below `homes`. `uid_of` gives tenants users
    of their own.
    """

    def __init__(
        self,
        homes: Sequence[Path],
        bwrap: Path | None = None,
        bounds: Bounds | None = None,
        uid_of: Callable[[str], int] | None = None,
        timed: Timed = untimed,
    ) -> None:
        self._root = os.geteuid() == 0
        self._pool = Pool(bounds or Bounds())
        self._timed = timed
        self._entrance = Entrance(homes, bwrap)
        self._works = False
        own = Identity(os.geteuid(), os.getegid())
        self.sandbox = Identity(SANDBOX_UID, SANDBOX_UID) if self._root else own
        """Of those who have no other: owns worktrees, runs every command that looks at one."""
        self._uid_of = uid_of
        self.keeper = Identity(KEEPER_UID, KEEPER_UID) if self._root else own
        """Owns repositories, which no sandbox may write."""

    async def __aenter__(self) -> "Cells":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()
        self._entrance.close()

    def sandbox_of(self, tenant: str) -> Identity:
        """Owns the worktrees of a tenant, which is named by its folder; runs every command that
        looks at one. Raises `ResourceExhausted`."""
        if self._uid_of is None:
            return self.sandbox
        uid = self._uid_of(tenant)
        return Identity(uid, uid)

    def mode_of(self, owner: Identity) -> int:
        """Of the directory of a worktree: of no concern to others, where those have other uids."""
        return 0o755 if owner == self.sandbox else 0o700

    @property
    def warm(self) -> int:
        """How many cells are kept."""
        return len(self._pool)

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

    async def call(
        self,
        cell: Cell,
        name: str,
        payload: Payload,
        descriptors: Sequence[int] = (),
        *,
        timeout: float,
        limit: int = frames.LIMIT,
    ) -> tuple[Payload, list[int]]:
        """Do the operation `name` of `within.operations` in a cell that is kept.

        The answer, of at most `limit` bytes, and the descriptors that come with it: they are the
        caller's, and as little to be believed as the answer. Raises `GitTimedOut` (it is killed
        then), `CellLost`, `OutputTooLarge`, and what `failed` makes of what went wrong in it.
        """
        if not cell.is_kept:
            raise ValueError("operations are done in cells that are kept")
        with timed_out_as(name), self._watched(name):
            async with asyncio.timeout(timeout), AsyncExitStack() as stack:
                await self._entrance.require()
                warm = await self._kept(stack, cell, beyond=True)
                if warm is None:
                    raise CellLost("what the cell is to see is gone", command=name)
                return await warm.call(name, payload, cell.constants, descriptors, limit)

    async def drop(self, path: Path) -> None:
        """End all kept cells that see something at or below `path`; returns when they are gone."""
        await self._pool.drop(path)

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
        async with AsyncExitStack() as stack:
            stack.enter_context(self._watched(command.name))
            running = None
            if cell.is_kept:
                running = await self._started_warm(stack, cell, command, stdin, stdout, descriptors)
            if running is None:
                running = await self._started_once(cell, command, stdin, stdout, descriptors)
            stack.push_async_callback(running.close)
            yield running

    @contextmanager
    def _watched(self, name: str) -> Iterator[None]:
        """`name` is of a command or an operation: each is in a table of ours."""
        with self._timed(name), tracing.span(f"git {name}"):
            yield

    async def _started_warm(
        self,
        stack: AsyncExitStack,
        cell: Cell,
        command: Command,
        stdin: int | None,
        stdout: int | None,
        descriptors: Sequence[int],
    ) -> Running | None:
        """None where there is no room for a warm cell."""
        for last in (False, True):
            warm = await self._kept(stack, cell)
            if warm is None:
                return None
            try:
                return warm.run(command, cell.cwd, cell.constants, stdin, stdout, descriptors)
            except CellLost:  # It ended while nobody looked.
                if last:
                    raise
        return None

    async def _kept(
        self, stack: AsyncExitStack, cell: Cell, *, beyond: bool = False
    ) -> Warm | None:
        sources = [bind.source for bind in cell.binds]
        try:
            seen = identities(sources)
        except FileNotFoundError:  # That is told by the cell.
            return None
        key: Hashable = (
            cell.identity,
            tuple(cell.binds),
            tuple(cell.directories),
            cell.memory,
            seen,
        )
        using = self._pool.using(key, sources, lambda: self._warm(cell), beyond=beyond)
        return await stack.enter_async_context(using)

    async def _warm(self, cell: Cell) -> Warm:
        python = program.interpreter()
        prefix = self._entrance.path(python.prefix) if python.bound else ""
        modules = memory_file(program.modules())

        def make(control: int) -> Program:
            argv = [
                *view(self._entrance, cell, {}),
                *("--size", str(_MADE_SIZE), "--tmpfs", MADE),
                *program.view(prefix, modules),
                *("--remount-ro", "/", "--as-pid-1", "--"),
                *program.command(control, cell.memory),
            ]
            nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            opened.append(nothing)
            return Program(
                argv=argv,
                env={"PATH": "/usr/bin:/bin"},
                descriptors=[control, modules],
                stdin=nothing,
                stdout=nothing,
            )

        opened = [modules]
        try:
            return await Warm.start(make)
        finally:
            close_all(opened)

    async def _started_once(
        self,
        cell: Cell,
        command: Command,
        stdin: int | None,
        stdout: int | None,
        descriptors: Sequence[int],
    ) -> Running:
        given = {**cell.files, **cell.constants}
        empty = [path for path in given if path.endswith("/")]
        files = {path: memory_file(data) for path, data in given.items() if path not in empty}
        limited = ["--", "sh", "-c", _LIMITED, str(cell.memory >> 10), *command.argv]
        try:
            return await Running.start(
                Program(
                    argv=[*view(self._entrance, cell, files, empty), "--chdir", cell.cwd, *limited],
                    env=command.env,
                    descriptors=[*files.values(), *descriptors],
                    stdin=stdin,
                    stdout=stdout,
                )
            )
        finally:
            close_all(list(files.values()))


@contextmanager
def timed_out_as(command: str) -> Iterator[None]:
    """Turn what a program may not do into failures that a caller understands."""
    try:
        yield
    except TimeoutError:
        raise GitTimedOut("git did not finish in time", command=command) from None
    except TooMuchOutput:
        raise OutputTooLarge("git's answer is too large", command=command) from None
