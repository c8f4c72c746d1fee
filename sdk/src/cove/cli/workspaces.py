"""`cove create ls show rm undelete`."""

import argparse
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from cove.cli.console import Console, age, printable, when
from cove.cli.credentials import add_credentials, credentials
from cove.cli.errors import UsageError
from cove.client import Client
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1 import registry_pb2
from cove.workspaces import OnProgress


class Add(Protocol):
    """Adds a sub-command; its handler returns the exit status."""

    def __call__(
        self,
        name: str,
        command: Callable[[Client, argparse.Namespace, Console], Awaitable[int]],
        summary: str,
    ) -> argparse.ArgumentParser: ...


def add(command: Add) -> None:
    """Add the sub-commands of this module."""
    create = command("create", _create, "make a workspace from a repository; prints its id")
    option = create.add_argument
    option("repository", nargs="?", default="", help="path or URL; none: a new, empty one")
    option("--id", default="", help="the id; the server makes one when it is missing")
    option("--revision", default="", help="branch, tag or commit to start from")
    option("--branch", default="", help="name of the new branch; default cove/ID")
    option("-e", "--env", action="append", default=[], metavar="K=V", help="for every command")
    option("-l", "--label", action="append", default=[], metavar="K=V", help="a label")
    option("--memory", type=int, default=0, metavar="BYTES", help="limit of memory")
    option("--processes", type=int, default=0, metavar="N", help="limit of processes")
    option("--cpus", type=float, default=0, metavar="N", help="limit of processor time")
    option("--keep-failed", action="store_true", help="keep the record when it cannot be made")
    option("--no-wait", action="store_true", help="return when it is recorded, not when ready")
    add_credentials(create)
    ls = command("ls", _ls, "list workspaces")
    ls.add_argument("-a", "--all", action="store_true", help="also deleted ones")
    show = command("show", _show, "show a workspace")
    show.add_argument("workspace")
    rm = command("rm", _rm, "remove workspaces; unsaved work is kept for a while")
    rm.add_argument("workspace", nargs="+")
    rm.add_argument("-f", "--force", action="store_true", help="keep nothing, and free the id")
    rm.add_argument("--allow-missing", action="store_true", help="a missing one is no error")
    undelete = command("undelete", _undelete, "bring back a workspace whose work is still kept")
    undelete.add_argument("workspace")


def pairs(texts: Sequence[str], name: str) -> dict[str, str]:
    """`K=V` each. Raises `UsageError`."""
    found: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UsageError(f"{name} {text}: not of the form K=V")
        found[key] = value
    return found


def repository_url(text: str) -> str:
    """A local path as a URL; anything else as it is."""
    if not text or "://" in text:
        return text
    path = Path(text).expanduser()
    before, colon, _ = text.partition(":")
    if colon and "/" not in before and not path.exists():
        return text  # user@host:path, as ssh has it.
    return path.resolve().as_uri()


async def _create(cove: Client, options: argparse.Namespace, console: Console) -> int:
    with _progress(console) as on_progress:
        workspace = await cove.workspaces.create(
            repository_url(options.repository),
            id=options.id,
            revision=options.revision,
            branch=options.branch,
            env=pairs(options.env, "--env"),
            labels=pairs(options.label, "--label"),
            limits=registry_pb2.Limits(
                memory_bytes=options.memory,
                processes=options.processes,
                milli_cpus=round(options.cpus * 1000),
            ),
            credentials=credentials(options),
            keep_failed=options.keep_failed,
            wait=not options.no_wait,
            on_progress=on_progress,
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


@contextmanager
def _progress(console: Console) -> Iterator[OnProgress | None]:
    """Shows how far a create is, where someone sees it."""
    if not console.shows_progress:
        yield None
        return
    from cove.cli.progress import shown

    with shown() as tell:
        yield tell


async def _ls(cove: Client, options: argparse.Namespace, console: Console) -> int:
    found = [each.message async for each in cove.workspaces.list(show_deleted=options.all)]
    if console.as_json:
        console.json(pb.ListWorkspacesResponse(workspaces=found))
        return 0
    header = ("ID", "STATE", "BRANCH", "HEAD", "AGE", "REPOSITORY")
    console.table(
        header,
        [
            (
                each.name.rpartition("/")[2],
                _state(each),
                printable(each.branch),
                (each.head_commit or each.base_commit)[:10],
                age(each.create_time),
                printable(each.spec.repository),
            )
            for each in found
        ],
    )
    return 0


async def _show(cove: Client, options: argparse.Namespace, console: Console) -> int:
    workspace = (await cove.workspaces.get(options.workspace)).message
    if console.as_json:
        console.json(workspace)
        return 0
    facts = {
        "id": workspace.name.rpartition("/")[2],
        "uid": workspace.uid,
        "state": _state(workspace),
        "failure": f"{workspace.failure.reason} {workspace.failure.message}".strip(),
        "repository": workspace.spec.repository,
        "revision": workspace.spec.revision,
        "branch": workspace.branch,
        "base": workspace.base_commit,
        "head": workspace.head_commit,
        "driver": workspace.driver,
        "creator": workspace.creator,
        "created": when(workspace.create_time),
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


async def _rm(cove: Client, options: argparse.Namespace, console: Console) -> int:
    for name in options.workspace:
        kept = await cove.workspaces.named(name).delete(
            force=options.force, allow_missing=options.allow_missing
        )
        if console.as_json:
            console.json(pb.DeleteWorkspaceResponse(workspace=kept))
        elif kept:
            until = when(kept.purge_time)
            console.line(f"{name} deleted; its unsaved work is kept until {until}: cove undelete")
        else:
            console.line(f"{name} removed")
    return 0


async def _undelete(cove: Client, options: argparse.Namespace, console: Console) -> int:
    workspace = await cove.workspaces.undelete(options.workspace)
    if console.as_json:
        console.json(workspace.message)
    else:
        console.line(workspace.id)
    return 0


def _state(workspace: pb.Workspace) -> str:
    return pb.Workspace.State.Name(workspace.state).removeprefix("STATE_").lower()
