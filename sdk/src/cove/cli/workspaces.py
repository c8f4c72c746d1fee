"""`cove create update ls show rm undelete suspend resume`."""

import argparse
from pathlib import Path
from typing import Final

from cove import networks
from cove.cli.commands.arguments import pairs
from cove.cli.console import Console, age, printable, span, when
from cove.cli.credentials import credentials
from cove.cli.errors import UsageError
from cove.cli.progress import Progress, waiting
from cove.client import Client
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1 import registry_pb2
from cove.workspaces import OnProgress

_CAUSES: Final = {
    pb.Workspace.CAUSE_REQUESTED: "it was asked for",
    pb.Workspace.CAUSE_EXPIRED: "its time is over",
    pb.Workspace.CAUSE_IDLE: "it was idle; the next use resumes it",
}


def repository_url(text: str) -> str:
    """A local path as a URL; anything else as it is."""
    if not text or "://" in text:
        return text
    path = Path(text).expanduser()
    before, colon, _ = text.partition(":")
    if colon and "/" not in before and not path.exists():
        return text  # user@host:path, as ssh has it.
    return path.resolve().as_uri()


async def create(cove: Client, options: argparse.Namespace, console: Console) -> int:
    async with waiting(console, "creating") as progress:
        workspace = await cove.workspaces.create(
            repository_url(options.repository),
            id=options.id,
            revision=options.revision,
            branch=options.branch,
            depth=options.depth,
            filter=options.filter,
            driver=options.driver,
            image=options.image,
            setup=options.setup,
            requires=options.require,
            env=pairs(options.env, "--env"),
            labels=pairs(options.label, "--label"),
            limits=registry_pb2.Limits(
                memory_bytes=options.memory,
                processes=options.processes,
                milli_cpus=round(options.cpus * 1000),
                disk_bytes=options.disk,
                open_files=options.open_files,
            ),
            network=_hosts(options.network),
            ttl=options.ttl,
            idle_timeout=options.idle_timeout,
            credentials=credentials(options),
            keep_failed=options.keep_failed,
            wait=not options.no_wait,
            on_progress=_teller(progress) if progress else None,
        )
    for warning in workspace.message.warnings:
        console.note(f"warning: {printable(warning)}")
    if console.as_json:
        console.json(workspace.message)
        return 0
    if console.is_terminal:
        base = workspace.message.base_commit[:12] or "an empty repository"
        console.note(f"on branch {printable(workspace.branch)}, from {base}")
    console.line(workspace.id)
    return 0


def _teller(progress: Progress) -> OnProgress:
    def tell(told: registry_pb2.Progress) -> None:
        progress.tell(printable(told.phase) or "creating", told.done, told.total)

    return tell


async def update(cove: Client, options: argparse.Namespace, console: Console) -> int:
    workspace = cove.workspaces.named(options.workspace)
    if options.network and options.no_network:
        raise UsageError("--network and --no-network exclude each other")
    for name in ("ttl", "idle_timeout"):
        if getattr(options, name) and getattr(options, f"no_{name}"):
            option = name.replace("_", "-")
            raise UsageError(f"--{option} and --no-{option} exclude each other")
    changed = await workspace.update(
        network=_hosts(options.network) if options.network or options.no_network else None,
        ttl=0 if options.no_ttl else options.ttl,
        idle_timeout=0 if options.no_idle_timeout else options.idle_timeout,
        labels=pairs(options.label, "--label") if options.label else None,
    )
    if console.as_json:
        console.json(changed)
    else:
        console.line(workspace.id)
    return 0


def _hosts(texts: list[str]) -> list[str]:
    """As they are. Raises `UsageError` for a port that is none."""
    try:
        networks.network(texts)
    except ValueError as error:
        raise UsageError(f"--network {error}") from None
    return texts


async def ls(cove: Client, options: argparse.Namespace, console: Console) -> int:
    workspaces = cove.workspaces.list(
        show_deleted=options.all, filter=options.filter, order_by=options.order_by
    )
    found = [each.message async for each in workspaces]
    if console.as_json:
        console.json(pb.ListWorkspacesResponse(workspaces=found))
        return 0
    header = ("ID", "STATE", "BRANCH", "HEAD", "AGE", "REPOSITORY")
    console.table(
        header,
        [
            (
                each.name.rpartition("/")[2],
                state_of(each),
                printable(each.branch),
                (each.head_commit or each.base_commit)[:10],
                age(each.create_time),
                printable(each.spec.repository),
            )
            for each in found
        ],
    )
    return 0


async def show(cove: Client, options: argparse.Namespace, console: Console) -> int:
    workspace = (await cove.workspaces.get(options.workspace)).message
    if console.as_json:
        console.json(workspace)
        return 0
    facts = {
        "id": workspace.name.rpartition("/")[2],
        "uid": workspace.uid,
        "state": state_of(workspace),
        "because": _CAUSES.get(workspace.cause, ""),
        "failure": f"{workspace.failure.reason} {workspace.failure.message}".strip(),
        "remedy": workspace.failure.remedy,
        "repository": workspace.spec.repository,
        "revision": workspace.spec.revision,
        "source": workspace.source.removeprefix("workspaces/"),
        "branch": workspace.branch,
        "base": workspace.base_commit,
        "head": workspace.head_commit,
        "driver": workspace.driver,
        "network": " ".join(networks.written(workspace.spec.network)),
        "creator": workspace.creator,
        "created": when(workspace.create_time),
        "last used": when(workspace.last_active_time),
        "idle after": span(workspace.spec.idle_timeout),
        "suspended": when(workspace.suspend_time),
        "expires": when(workspace.expire_time),
        "deleted": when(workspace.delete_time),
        "kept until": when(workspace.purge_time),
        "labels": ", ".join(f"{key}={value}" for key, value in sorted(workspace.labels.items())),
    }
    for name, value in facts.items():
        if value:
            console.line(f"{name + ':':<12}{printable(value)}")
    for warning in workspace.warnings:
        console.line(f"{'warning:':<12}{printable(warning)}")
    return 0


async def rm(cove: Client, options: argparse.Namespace, console: Console) -> int:
    for name in options.workspace:
        async with waiting(console, f"removing {name}"):
            kept = await cove.workspaces.named(name).delete(
                force=options.force, allow_missing=options.allow_missing
            )
        if console.as_json:
            console.json(pb.DeleteWorkspaceResponse(workspace=kept))
        elif kept:
            until = when(kept.purge_time)
            console.line(
                f"{name} deleted; its unsaved work is kept until {until}: cove undelete {name}"
            )
        else:
            console.line(f"{name} removed")
    return 0


async def undelete(cove: Client, options: argparse.Namespace, console: Console) -> int:
    workspace = await cove.workspaces.undelete(options.workspace)
    if console.as_json:
        console.json(workspace.message)
    else:
        console.line(workspace.id)
    return 0


async def suspend(cove: Client, options: argparse.Namespace, console: Console) -> int:
    for name in options.workspace:
        async with waiting(console, f"suspending {name}"):
            suspended = await cove.workspaces.named(name).suspend(force=options.force)
        if console.as_json:
            console.json(suspended)
        else:
            console.line(name)
    return 0


async def resume(cove: Client, options: argparse.Namespace, console: Console) -> int:
    for name in options.workspace:
        async with waiting(console, f"resuming {name}"):
            resumed = await cove.workspaces.named(name).resume()
        if console.as_json:
            console.json(resumed)
        else:
            console.line(name)
    return 0


def state_of(workspace: pb.Workspace) -> str:
    return pb.Workspace.State.Name(workspace.state).removeprefix("STATE_").lower()
