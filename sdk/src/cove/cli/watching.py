"""`cove watch`: all workspaces, and every change of them."""

import argparse
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from cove.cli.console import Console, age, printable
from cove.cli.workspaces import state_of
from cove.client import Client
from cove.gateway.v1 import gateway_pb2 as pb
from cove.watch import Change, Delete, Put, SnapshotEnd

if TYPE_CHECKING:  # It takes a while to import.
    from rich.table import Table

_COLOURS: Final = {"ready": "green", "failed": "red", "pending": "yellow", "deleting": "yellow"}
_GONE: Final = "removed"
_LEFT: Final = "left"
"""Removed, or selected no more."""


async def watch(cove: Client, options: argparse.Namespace, console: Console) -> int:
    """Ends by a signal only."""
    changes = cove.workspaces.watch(options.revision, filter=options.filter)
    async with aclosing(changes):
        if console.as_json:
            await _as_json(changes, console)
        elif console.is_terminal:
            await _as_table(changes, show_deleted=options.all)
        else:
            gone = _LEFT if options.filter else _GONE
            await _as_lines(changes, console, gone, show_deleted=options.all)
    return 0


async def _as_json(changes: AsyncGenerator[Change, None], console: Console) -> None:
    async for change in changes:
        match change:
            case Put():
                console.json(pb.WatchWorkspacesResponse(put=change))
            case Delete():
                console.json(pb.WatchWorkspacesResponse(delete=change))
            case SnapshotEnd():
                console.json(pb.WatchWorkspacesResponse(snapshot_end=change))


async def _as_lines(
    changes: AsyncGenerator[Change, None], console: Console, gone: str, *, show_deleted: bool
) -> None:
    """A line for each change that can be seen: many writes change nothing that is shown."""
    shown: dict[str, str] = {}
    async for change in changes:
        match change:
            case Put():
                name, line = _id(change.workspace.name), _line(change.workspace)
                is_old = name not in shown and not change.revision
                if is_old and not show_deleted and _is_deleted(change.workspace):
                    continue
                if shown.get(name) != line:
                    console.line(f"{name} {line}")
                shown[name] = line
            case Delete():
                name = _id(change.name)
                if shown.pop(name, None) is not None:
                    console.line(f"{name} {gone}")


async def _as_table(changes: AsyncGenerator[Change, None], *, show_deleted: bool) -> None:
    from rich.live import Live

    there: dict[str, pb.Workspace] = {}
    with Live(_Table(there), auto_refresh=True, refresh_per_second=4) as live:
        async for change in changes:
            match change:
                case Put():
                    there[change.workspace.name] = change.workspace
                    if _is_deleted(change.workspace) and not show_deleted:
                        del there[change.workspace.name]
                case Delete():
                    there.pop(change.name, None)
            live.refresh()


class _Table:
    """Made anew for each look, as ages go on without any change."""

    def __init__(self, there: dict[str, pb.Workspace]) -> None:
        self._there = there

    def __rich__(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for name in ("ID", "STATE", "BRANCH", "HEAD", "AGE", "REPOSITORY"):
            table.add_column(name, no_wrap=name != "REPOSITORY")
        for _, each in sorted(self._there.items()):
            state = _state(each)
            cells = [
                Text(_id(each.name)),
                Text(state, style=_COLOURS.get(state.partition(" ")[0], "")),
                Text(printable(each.branch)),
                Text(_head(each)),
                Text(age(each.create_time)),
                Text(printable(each.spec.repository)),
            ]
            table.add_row(*cells)
        return table


def _line(workspace: pb.Workspace) -> str:
    return f"{_state(workspace)} {printable(workspace.branch)} {_head(workspace)}".rstrip()


def _state(workspace: pb.Workspace) -> str:
    """With how far the making of it is, or why it failed."""
    state = state_of(workspace)
    if workspace.state == pb.Workspace.STATE_PENDING and workspace.progress.phase:
        return f"{state} ({printable(workspace.progress.phase)})"
    if workspace.state == pb.Workspace.STATE_FAILED and workspace.failure.reason:
        return f"{state} ({printable(workspace.failure.reason)})"
    return state


def _head(workspace: pb.Workspace) -> str:
    return (workspace.head_commit or workspace.base_commit)[:10]


def _is_deleted(workspace: pb.Workspace) -> bool:
    return workspace.state == pb.Workspace.STATE_DELETED


def _id(name: str) -> str:
    return name.rpartition("/")[2]
