"""`cove fork snapshot snapshots`."""

import argparse

from cove.cli.commands.arguments import pairs
from cove.cli.console import Console, age, printable
from cove.cli.errors import UsageError
from cove.cli.progress import waiting
from cove.client import Client
from cove.gateway.v1 import gateway_pb2 as pb


async def fork(cove: Client, options: argparse.Namespace, console: Console) -> int:
    async with waiting(console, f"forking {options.workspace}"):
        made = await cove.workspaces.named(options.workspace).fork(
            options.id, snapshot=options.snapshot, labels=pairs(options.label, "--label")
        )
    if console.as_json:
        console.json(made.message)
        return 0
    if console.is_terminal:
        console.note(f"on branch {printable(made.branch)}")
    console.line(made.id)
    return 0


async def snapshot(cove: Client, options: argparse.Namespace, console: Console) -> int:
    found = cove.workspaces.named(options.workspace).snapshots
    if options.rm:
        if not options.id:
            raise UsageError("--rm: of which snapshot? ID is missing")
        await found.delete(options.id)
        if not console.as_json:
            console.line(f"{options.id} removed")
        return 0
    async with waiting(console, f"keeping {options.workspace}"):
        made = await found.create(options.id)
    if console.as_json:
        console.json(made)
    else:
        console.line(_id(made))
    return 0


async def snapshots(cove: Client, options: argparse.Namespace, console: Console) -> int:
    found = await cove.workspaces.named(options.workspace).snapshots.list()
    if console.as_json:
        console.json(pb.ListSnapshotsResponse(snapshots=found))
        return 0
    rows = [(_id(each), each.head_commit[:10], age(each.create_time)) for each in found]
    console.table(("ID", "HEAD", "AGE"), rows)
    return 0


def _id(made: pb.Snapshot) -> str:
    return made.name.rpartition("/")[2]
