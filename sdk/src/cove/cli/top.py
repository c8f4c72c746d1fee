"""`cove top`: what runs in the tenant's workspaces now, and what it uses."""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import MessageToDict

from cove.cli import terminal
from cove.cli.console import Console, printable
from cove.cli.workspaces import state_of
from cove.client import Client
from cove.executor.v1.executor_pb2 import UsageSample
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1.access_pb2 import Quota
from cove.status import CoveError
from cove.workspace import Workspace

if TYPE_CHECKING:  # It takes a while to import.
    from rich.table import Table

_FOLLOWED: Final = 200
"""Workspaces whose use is followed, at most."""
_AT_ONCE: Final = 8
_FIRST: Final = 5.0
"""Seconds that the first look waits for the samples of all."""
_HEADER: Final = ("ID", "STATE", "CPU", "MEMORY", "PROCESSES", "RUNS", "COMMAND")
_NUMBERS: Final = ("CPU", "MEMORY", "PROCESSES", "RUNS")
_WIDEST: Final = 60
_QUOTAS: Final = ("workspaces", "active_environments", "executions")


@dataclass(slots=True, kw_only=True)
class Row:
    """One workspace at one time."""

    workspace: pb.Workspace
    sample: UsageSample
    cpu: float | None
    """Processors in use; None: not known yet."""
    executions: Sequence[str]
    """Ids of those that run."""
    command: str
    """What the latest of them runs."""

    @property
    def order(self) -> tuple[float, int, str]:
        return -(self.cpu or 0), -self.sample.usage.memory_bytes, self.workspace.name


@dataclass(slots=True, kw_only=True)
class View:
    """All that is seen at one time."""

    quota: Quota | None
    """None where the caller may not know."""
    rows: list[Row] = field(default_factory=list)
    unseen: int = 0
    """Workspaces that were too many to follow."""


class _Use:
    """Follows what one workspace uses."""

    def __init__(self, workspace: Workspace, interval: float) -> None:
        self._samples: list[UsageSample] = []
        self.known = asyncio.Event()
        """Set when there is enough to tell, or when there will be nothing."""
        self.task = asyncio.create_task(self._follow(workspace, interval))

    @property
    def last(self) -> UsageSample:
        return self._samples[-1] if self._samples else UsageSample()

    @property
    def cpu(self) -> float | None:
        if len(self._samples) < 2 or not self.last.running:
            return None
        before, now = (each.usage.cpu_time.ToTimedelta() for each in self._samples)
        began, ended = (each.time.ToNanoseconds() / 1e9 for each in self._samples)
        if ended <= began:
            return None
        return max(0.0, (now - before).total_seconds() / (ended - began))

    async def _follow(self, workspace: Workspace, interval: float) -> None:
        with suppress(CoveError):  # It went, or it does not run: the next look leaves it out.
            async for sample in workspace.usage(interval):
                self._samples = [*self._samples[-1:], sample]
                if len(self._samples) > 1 or not sample.running:
                    self.known.set()
        self.known.set()


class Top:
    """Looks again and again; what it follows between two looks ends with `close`."""

    def __init__(self, cove: Client, interval: float) -> None:
        self._cove = cove
        self._interval = interval
        self._uses: dict[str, _Use] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        tasks = [each.task for each in self._uses.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self) -> View:
        quota, found = await asyncio.gather(self._quota(), self._workspaces())
        self._follow(found)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST):
                await asyncio.gather(*(use.known.wait() for use in self._uses.values()))
        rows = await asyncio.gather(*(self._row(each) for each in found if each.id in self._uses))
        return View(
            quota=quota, rows=sorted(rows, key=lambda row: row.order), unseen=len(found) - len(rows)
        )

    async def _quota(self) -> Quota | None:
        try:
            return await self._cove.tenant.quota()
        except CoveError:
            return None

    async def _workspaces(self) -> list[Workspace]:
        return [each async for each in self._cove.workspaces.list()]

    def _follow(self, found: Sequence[Workspace]) -> None:
        there = {each.id for each in found}
        for gone in self._uses.keys() - there:
            self._uses.pop(gone).task.cancel()
        new = (each for each in found if each.id not in self._uses)
        for each in islice(new, _FOLLOWED - len(self._uses)):
            self._uses[each.id] = _Use(each, self._interval)
        for each in found:  # Its workspace was suspended, say, and may run again.
            use = self._uses.get(each.id)
            if use and use.task.done():
                self._uses[each.id] = _Use(each, self._interval)

    async def _row(self, workspace: Workspace) -> Row:
        use = self._uses[workspace.id]
        names, command = await self._executions(workspace) if use.last.running else ([], "")
        return Row(
            workspace=workspace.message,
            sample=use.last,
            cpu=use.cpu,
            executions=names,
            command=command,
        )

    async def _executions(self, workspace: Workspace) -> tuple[list[str], str]:
        running = []
        async with self._gate:
            with suppress(CoveError):
                found = workspace.executions.list(filter="state = RUNNING")
                running = [each async for each in found]
        if not running:
            return [], ""
        latest = max(running, key=lambda each: each.message.start_time.ToNanoseconds())
        spec = latest.message.spec
        told = " ".join(spec.argv) or spec.script.partition("\n")[0]
        return [each.id for each in running], printable(told[:_WIDEST])


async def top(cove: Client, options: argparse.Namespace, console: Console) -> int:
    """Ends by a signal, or with `--once`."""
    looking = Top(cove, min(options.interval, 1) if options.once else options.interval)
    try:
        if options.once:
            _tell(await looking.look(), console)
        elif console.is_terminal:
            await _as_screen(looking, options.interval)
        else:
            while True:
                _tell(await looking.look(), console)
                await asyncio.sleep(options.interval)
    finally:
        await looking.close()
    return 0


async def _as_screen(looking: Top, interval: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, screen=True) as live:
        while True:
            view = await looking.look()
            rows, _ = terminal.size()
            lines = Text("\n".join(_headlines(view)))
            live.update(Group(lines, _table(view.rows[: max(rows - 5, 1)])), refresh=True)
            await asyncio.sleep(interval)


def _table(rows: Sequence[Row]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in _HEADER:
        table.add_column(name, no_wrap=True, justify="right" if name in _NUMBERS else "left")
    for row in rows:
        table.add_row(*map(Text, _cells(row)))
    return table


def _tell(view: View, console: Console) -> None:
    if console.as_json:
        console.json(_json(view))
        return
    for line in _headlines(view):
        console.line(line)
    console.table(_HEADER, [_cells(row) for row in view.rows])


def _headlines(view: View) -> list[str]:
    now = datetime.now(UTC).strftime("%H:%M:%S")
    running = sum(row.sample.running for row in view.rows)
    cpu = sum(row.cpu or 0 for row in view.rows)
    memory = sum(row.sample.usage.memory_bytes for row in view.rows)
    first = f"{now}  {len(view.rows)} workspaces, {running} run, {cpu:.0%} of a processor, "
    lines = [first + f"{_size(memory)} of memory"]
    if view.quota:
        lines.append(", ".join(_limit(view.quota, name) for name in _QUOTAS))
    if view.unseen:
        lines.append(f"and {view.unseen} more, which are too many to follow")
    return [*lines, ""]


def _limit(quota: Quota, name: str) -> str:
    used = str(getattr(quota.use, name)) if quota.use.HasField(name) else "?"  # type: ignore[arg-type]
    limit = getattr(quota.effective_limits, name)
    return f"{name.replace('_', ' ')} {used} of {limit or 'any number'}"


def _cells(row: Row) -> tuple[str, ...]:
    usage, runs = row.sample.usage, row.sample.running
    return (
        row.workspace.name.rpartition("/")[2],
        state_of(row.workspace),
        f"{row.cpu:.0%}" if row.cpu is not None else "-",
        _size(usage.memory_bytes) if runs else "-",
        str(usage.processes) if runs else "-",
        str(len(row.executions)) if runs else "-",
        row.command,
    )


def _json(view: View) -> Mapping[str, Any]:
    """In the mapping of proto3 where it is of a message."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **({"quota": MessageToDict(view.quota)} if view.quota else {}),
        "workspaces": [
            {
                "name": row.workspace.name,
                "state": pb.Workspace.State.Name(row.workspace.state),
                "running": row.sample.running,
                "usage": MessageToDict(row.sample.usage),
                **({"processors": round(row.cpu, 3)} if row.cpu is not None else {}),
                "executions": row.executions,
            }
            for row in view.rows
        ],
        "unseen": view.unseen,
    }


def _size(size: int) -> str:
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
