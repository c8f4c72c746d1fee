"""`workspace_status`."""

from typing import Final

from pydantic import BaseModel, Field

from cove.cli.console import quoted
from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.mcp.fields import WorkspaceId
from cove.mcp.tool import Answer, Arguments, Call, Tool
from cove.mcp.workspaces import Workspace, heading, shown

_MOST_ENTRIES: Final = 500


class Status(Arguments):
    """Tell how a workspace is: its state and branch, and which files differ from the last commit.
    workspace_diff shows the differences themselves."""

    workspace: WorkspaceId
    max_entries: int = Field(
        default=100, ge=1, le=_MOST_ENTRIES, description="Show at most so many files."
    )


class Entry(BaseModel):
    """A file that differs."""

    path: str = Field(description="In quotes, with escapes, where it has unusual characters.")
    state: str = Field(description="untracked, added, modified, deleted, renamed, type_changed.")
    old_path: str


class WorkspaceStatus(BaseModel):
    """How a workspace is, and what differs from the head of its branch."""

    workspace: Workspace
    ahead: int = Field(description="Commits that the commit it was made from has not.")
    behind: int = Field(description="Commits of the origin, as last seen, that it has not.")
    entries: list[Entry]
    total: int = Field(description="How many files differ, also where entries is cut.")
    truncated: bool


async def status(call: Call, asked: Status) -> Answer:
    workspace = await call.cove.workspaces.get(asked.workspace)
    data = WorkspaceStatus(
        workspace=shown(workspace.message),
        ahead=0,
        behind=0,
        entries=[],
        total=0,
        truncated=False,
    )
    if workspace.message.state != pb.Workspace.STATE_READY:
        return Answer(heading(data.workspace), data)
    found = await workspace.source.status(asked.max_entries)
    data.workspace.head_commit = found.head_commit
    data.ahead, data.behind = found.ahead, found.behind
    data.total, data.truncated = found.total, found.truncated
    data.entries = [
        Entry(
            path=quoted(each.path, each.raw_path),
            state=_state(each),
            old_path=quoted(each.old_path, each.raw_old_path),
        )
        for each in found.entries
    ]
    lines = [heading(data.workspace)]
    lines.append(
        f"{data.ahead} commits ahead of {data.workspace.base_commit[:12] or 'nothing'}, "
        f"{data.behind} behind; {data.total} files differ from the last commit"
    )
    for entry in data.entries:
        old = f"{entry.old_path} -> " if entry.old_path else ""
        lines.append(f"{entry.state}: {old}{entry.path}")
    if data.truncated:
        lines.append(f"[{data.total - len(data.entries)} more are not shown: max_entries]")
    return Answer("\n".join(lines), data)


def _state(entry: git_pb2.StatusEntry) -> str:
    """The one word for it: what the files say, or else what the index says."""
    if entry.work_state:
        name = git_pb2.StatusEntry.WorkState.Name(entry.work_state)
        return name.removeprefix("WORK_STATE_").lower()
    name = git_pb2.StatusEntry.IndexState.Name(entry.index_state)
    return name.removeprefix("INDEX_STATE_").lower()


TOOLS: Final = (
    Tool(
        name="workspace_status",
        title="Show a workspace's status",
        arguments=Status,
        run=status,
        answer=WorkspaceStatus,
        reads=True,
    ),
)
