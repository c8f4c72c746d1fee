"""`cove quota audit`."""

import argparse
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.json_format import MessageToDict

from cove.cli.console import Console, when
from cove.client import Client
from cove.registry.v1.access_pb2 import Quota

LIMITS: Final = ("workspaces", "active_environments", "executions", "disk_bytes")


async def quota(cove: Client, options: argparse.Namespace, console: Console) -> int:
    limits = {name: getattr(options, name) for name in LIMITS}
    given = {name: value for name, value in limits.items() if value is not None}
    if options.action == "set" and not given:
        console.trouble("no limit is given", "Name one, as --workspaces 10.")
        return 2
    if options.action == "show" and given:
        console.trouble("a limit is given, to be shown", "`cove quota set` sets it.")
        return 2
    found = await (cove.tenant.set_quota(**given) if given else cove.tenant.quota())
    _show(found, console)
    return 0


def _show(found: Quota, console: Console) -> None:
    if console.as_json:
        console.json(found)
        return
    rows = []
    for name in LIMITS:
        used = str(getattr(found.use, name)) if found.use.HasField(name) else "?"
        limit = getattr(found.effective_limits, name)
        rows.append((name.replace("_", " "), used, str(limit) if limit else "none"))
    console.table(("WHAT", "USED", "LIMIT"), rows)


async def audit(cove: Client, options: argparse.Namespace, console: Console) -> int:
    since = None
    if options.since is not None:
        since = datetime.now(UTC) - timedelta(seconds=options.since)
    entries = cove.tenant.audit(
        since=since,
        principal=options.principal,
        resource=options.resource,
        action=options.action,
        code=options.code,
    )
    found = []
    async with aclosing(entries):
        async for entry in entries:
            found.append(entry)
            if len(found) >= options.limit:
                break
    if console.as_json:
        console.json({"entries": [MessageToDict(entry) for entry in found]})
        return 0
    rows = [
        (
            when(entry.time),
            entry.principal or "-",
            entry.action.rpartition(".")[2],
            entry.resource or "-",
            entry.reason or entry.code,
            f"{entry.source}{f' x{entry.count}' if entry.count > 1 else ''}",
        )
        for entry in found
    ]
    console.table(("TIME", "WHO", "WHAT", "RESOURCE", "END", "FROM"), rows)
    return 0
