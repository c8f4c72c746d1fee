"""`workspace_create`, `_list`, `_delete`, `_undelete`."""

import asyncio
import secrets
from typing import Final

from pydantic import BaseModel, Field

from cove.cli.console import when
from cove.cli.workspaces import repository_url, state_of
from cove.gateway.v1 import gateway_pb2 as pb
from cove.mcp.failures import wrong
from cove.mcp.fields import Env, Limit, Offset, WaitSeconds, WorkspaceId, filter_, listed, page
from cove.mcp.tool import Answer, Arguments, Call, Tool
from cove.status import DeadlineExceeded, NotFound

_ID_BYTES: Final = 5


class Create(Arguments):
    """Make a workspace: a copy of a repository on a branch of its own, with a sandbox in which
    commands run. The repository itself is not changed until workspace_push. A local repository is
    taken as it was committed: changes that are not committed there are left out, with a warning.
    Where it takes longer than wait_seconds it goes on: ask workspace_status."""

    repository: str = Field(
        default="",
        max_length=4096,
        description="URL (https, ssh, file) or local path, for example `.`. Empty: a new, empty "
        "repository.",
    )
    id: str = Field(
        default="",
        pattern="^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$",
        description="Id to call it by: lower-case letters, digits, dashes. Default: one is made.",
    )
    revision: str = Field(
        default="",
        max_length=1024,
        description="Branch, tag or commit to start from; default the repository's HEAD.",
    )
    branch: str = Field(
        default="", max_length=240, description="Name of the new branch; default cove/ID."
    )
    env: Env = Field(
        default_factory=dict, description="Environment variables of every command in it."
    )
    wait_seconds: WaitSeconds = 45


class ListAll(Arguments):
    """List the workspaces: id, state, branch, repository."""

    deleted: bool = Field(
        default=False, description="Also deleted ones whose unsaved work is still kept."
    )
    filter: str = filter_("state = READY AND labels.team = web")
    limit: Limit = 100
    offset: Offset = 0


class Delete(Arguments):
    """End all that runs in a workspace and remove it. Unsaved work, that is changes that are not
    committed and commits that are not pushed, is kept for a while: workspace_undelete."""

    workspace: WorkspaceId
    force: bool = Field(
        default=False, description="Keep nothing: unsaved work is lost for good, the id is free."
    )


class Undelete(Arguments):
    """Bring back a deleted workspace whose unsaved work is still kept."""

    workspace: WorkspaceId


class Workspace(BaseModel):
    """A workspace."""

    id: str
    state: str = Field(description="pending, ready, suspended, failed, deleting or deleted.")
    branch: str
    base_commit: str
    head_commit: str
    repository: str
    progress: str = Field(description="How far the making of it is.")
    failure: str
    warnings: list[str]
    kept_until: str = Field(description="When what is kept of a deleted one is removed.")


class Workspaces(BaseModel):
    """A page of workspaces."""

    workspaces: list[Workspace]
    next_offset: int | None = Field(description="Where the next page begins; None: no more.")


class Deleted(BaseModel):
    """What became of it."""

    workspace: str
    kept_until: str = Field(description="Until when unsaved work is kept; empty: there was none.")


async def create(call: Call, asked: Create) -> Answer:
    chosen = asked.id or f"ws-{secrets.token_hex(_ID_BYTES)}"
    try:
        repository = repository_url(asked.repository)
    except (OSError, RuntimeError, ValueError) as error:  # Of a path that cannot be one.
        raise wrong("repository", str(error)) from None
    try:
        async with asyncio.timeout(asked.wait_seconds or 1):
            made = await call.cove.workspaces.create(
                repository,
                id=chosen,
                revision=asked.revision,
                branch=asked.branch,
                env=asked.env,
                credentials=call.remotes.credentials(repository),
                on_progress=call.on_progress,
            )
    except TimeoutError:
        data = shown(await _begun(call, chosen))
        return Answer(
            f"workspace {chosen} is still being made ({data.progress or data.state}). "
            "workspace_status tells when it is ready. If it is gone then, it could not be made: "
            "call workspace_create again to see why.",
            data,
        )
    data = shown(made.message)
    base = data.base_commit[:12] or "an empty repository"
    warnings = "".join(f"\nwarning: {each}" for each in data.warnings)
    return Answer(
        f"workspace {chosen} is ready on branch {data.branch}, from {base}{warnings}", data
    )


async def _begun(call: Call, chosen: str) -> pb.Workspace:
    try:
        return (await call.cove.workspaces.get(chosen)).message
    except NotFound:
        raise DeadlineExceeded(
            "it was not begun in that time",
            remedy="Look whether it is there with workspace_list, then create it again with more "
            "wait_seconds.",
        ) from None


async def list_all(call: Call, asked: ListAll) -> Answer:
    workspaces = call.cove.workspaces.list(show_deleted=asked.deleted, filter=asked.filter)
    found, more = await page(workspaces, asked.offset, asked.limit)
    data = Workspaces(workspaces=[shown(each.message) for each in found], next_offset=more)
    rows = [
        f"{each.id} {each.state} {each.branch} {each.repository or '(no repository)'}"
        for each in data.workspaces
    ]
    return Answer(listed(rows, "workspaces", more), data)


async def delete(call: Call, asked: Delete) -> Answer:
    kept = await call.cove.workspaces.named(asked.workspace).delete(force=asked.force)
    until = when(kept.purge_time) if kept else ""
    data = Deleted(workspace=asked.workspace, kept_until=until)
    if until:
        return Answer(
            f"{asked.workspace} deleted; its unsaved work is kept until {until}: "
            "workspace_undelete brings it back",
            data,
        )
    return Answer(f"{asked.workspace} removed", data)


async def undelete(call: Call, asked: Undelete) -> Answer:
    data = shown((await call.cove.workspaces.undelete(asked.workspace)).message)
    return Answer(heading(data), data)


def shown(message: pb.Workspace) -> Workspace:
    """What a model needs of it."""
    doing = message.progress
    total = f" {doing.done} of {doing.total}" if doing.total else ""
    return Workspace(
        id=message.name.rpartition("/")[2],
        state=state_of(message),
        branch=message.branch,
        base_commit=message.base_commit,
        head_commit=message.head_commit,
        repository=message.spec.repository,
        progress=f"{doing.phase}{total}",
        failure=f"{message.failure.reason} {message.failure.message}".strip(),
        warnings=list(message.warnings),
        kept_until=when(message.purge_time),
    )


def heading(data: Workspace) -> str:
    """What is known of it, in a line."""
    facts = [f"workspace {data.id} is {data.state}", f"branch {data.branch}", data.progress]
    facts += [f"head {data.head_commit[:12]}" if data.head_commit else ""]
    facts += [f"failure: {data.failure}" if data.failure else ""]
    facts += [f"kept until {data.kept_until}" if data.kept_until else ""]
    return ", ".join(filter(None, facts))


TOOLS: Final = (
    Tool(
        name="workspace_create",
        title="Create a workspace",
        arguments=Create,
        run=create,
        answer=Workspace,
        reaches_out=True,
    ),
    Tool(
        name="workspace_list",
        title="List workspaces",
        arguments=ListAll,
        run=list_all,
        answer=Workspaces,
        reads=True,
    ),
    Tool(
        name="workspace_delete",
        title="Delete a workspace",
        arguments=Delete,
        run=delete,
        answer=Deleted,
        destroys=True,
        repeats=True,
    ),
    Tool(
        name="workspace_undelete",
        title="Bring back a workspace",
        arguments=Undelete,
        run=undelete,
        answer=Workspace,
    ),
)
