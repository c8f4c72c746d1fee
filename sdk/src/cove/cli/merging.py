"""`cove merge conflicts`."""

import argparse
from typing import Final

from cove.cli.commands.arguments import pairs
from cove.cli.console import Console, printable, quoted
from cove.cli.credentials import credentials
from cove.cli.errors import UsageError
from cove.cli.progress import waiting
from cove.cli.source import author
from cove.client import Client
from cove.git.v1 import git_pb2

_SHORT: Final = 10
_CONFLICTS: Final = 1
_LEAST: Final = 2


async def merge(cove: Client, options: argparse.Namespace, console: Console) -> int:
    if options.preview:
        return await _preview(cove, options, console)
    proof = credentials(options)
    by = author(options)
    trailers = pairs(options.trailer, "--trailer")
    if options.strategy in ("rebase", "fast-forward") and (options.message or by or trailers):
        raise UsageError(f"--{options.strategy} keeps the commits: no message, author or trailer")
    async with waiting(console, f"merging {options.workspace}"):
        answer = await cove.workspaces.named(options.workspace).merge(
            options.target,
            source=options.source,
            strategy=options.strategy,
            message=options.message,
            author=by,
            trailers=trailers,
            expected_target_head=options.expect,
            credentials=proof,
        )
    if console.as_json:
        console.json(answer)
        return 0
    target = printable(answer.target)
    where = f" -> {printable(answer.remote)}" if answer.remote else ""
    if answer.unchanged:
        console.line(f"{target} has all of it already")
        return 0
    before = answer.previous_commit[:_SHORT] or "new"
    console.line(f"{before}..{answer.commit.id[:_SHORT]} {target}{where}")
    return 0


async def _preview(cove: Client, options: argparse.Namespace, console: Console) -> int:
    proof = credentials(options)
    async with waiting(console, f"asking about {options.workspace}"):
        found = await cove.workspaces.named(options.workspace).preview_merge(
            options.target,
            source=options.source,
            strategy=options.strategy,
            fetch=True,
            credentials=proof,
        )
    status = 0 if found.mergeable else _CONFLICTS
    if console.as_json:
        console.json(found)
        return status
    counts = f"ahead {found.ahead}, behind {found.behind}"
    console.line(f"## {printable(found.target)} {found.target_commit[:_SHORT] or 'new'} [{counts}]")
    for conflict in found.conflicts:
        console.line(f"{_word(conflict)} {quoted(conflict.path, conflict.raw_path)}")
    if found.truncated:
        console.note(f"{found.total_conflicts - len(found.conflicts)} more are not shown")
    if found.stopped_at:
        console.note(f"stopped at {found.stopped_at[:_SHORT]}")
    if found.unchanged:
        console.line(f"{printable(found.target)} has all of it already")
    elif found.mergeable:
        files = "1 file" if found.changed_files == 1 else f"{found.changed_files} files"
        console.line(f"no conflicts, {files} would change")
    elif not found.conflicts:
        console.line("the target has commits that the source has not")
    return status


async def conflicts(cove: Client, options: argparse.Namespace, console: Console) -> int:
    if len(set(options.workspaces)) < _LEAST:
        raise UsageError("name at least two workspaces")
    async with waiting(console, "comparing"):
        found = await cove.workspaces.preview_conflicts(
            dict.fromkeys(options.workspaces), include_uncommitted=not options.committed
        )
    errors = [one for one in found.workspaces if one.error]
    status = _CONFLICTS if errors or found.collisions else 0
    if console.as_json:
        console.json(found)
        return status
    for collision in found.collisions:
        console.line(f"## {_short(collision.workspace_a)} {_short(collision.workspace_b)}")
        for conflict in collision.conflicts:
            console.line(f"{_word(conflict)} {quoted(conflict.path, conflict.raw_path)}")
        if collision.truncated:
            more = collision.total_conflicts - len(collision.conflicts)
            console.note(f"{more} more are not shown")
    for one in errors:
        console.note(f"{_short(one.name)} was left out: {printable(one.error)}")
    if not found.collisions:
        console.line("no conflicts")
    return status


def _short(name: str) -> str:
    return printable(name.rpartition("/")[2])


def _word(conflict: git_pb2.MergeConflict) -> str:
    """For example `modify/delete`."""
    name = git_pb2.MergeConflict.Kind.Name(conflict.kind).removeprefix("KIND_")
    return "conflict" if name == "UNSPECIFIED" else name.lower().replace("_", "/")
