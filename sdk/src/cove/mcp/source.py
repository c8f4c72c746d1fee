"""`workspace_diff`, `workspace_commit`, `workspace_log`, `workspace_push`."""

import re
from contextlib import aclosing
from typing import Final

from pydantic import BaseModel, Field

from cove.cli.console import quoted
from cove.git.v1 import git_pb2
from cove.mcp.failures import wrong
from cove.mcp.fields import MaxBytes, Offset, Paths, WorkspaceId, listed, page
from cove.mcp.tool import Answer, Arguments, Call, Tool

_MOST_FILES: Final = 200
_LONGEST_MESSAGE: Final = 2000
_SHORT: Final = 12
_AUTHOR: Final = re.compile(r"([^<>]*?)\s*<([^<>\s]*)>")


class Diff(Arguments):
    """Show what was changed, as patches: from the last commit to the files by default. Patches
    over max_bytes are cut, and the files whose patch is left out are named: ask for them by paths.
    """

    workspace: WorkspaceId
    range: str = Field(
        default="head..work",
        max_length=2100,
        description="head..work: not committed yet; base..work: all that was done; base..head: "
        "what was committed; or a..b of two commits, branches or tags.",
    )
    paths: Paths = Field(default_factory=list)
    max_bytes: MaxBytes = 30_000


class Commit(Arguments):
    """Commit what workspace_status shows, new and deleted files included, on the workspace's
    branch. Ignored files are left out."""

    workspace: WorkspaceId
    message: str = Field(min_length=1, max_length=100_000)
    paths: Paths = Field(default_factory=list)
    author: str = Field(
        default="",
        max_length=600,
        description="Name <mail address>; default the server's own.",
    )
    expected_head: str = Field(
        default="",
        pattern="^([0-9a-f]{40})?$",
        description="Only if this commit is the head of the branch.",
    )


class Log(Arguments):
    """List commits, newest first."""

    workspace: WorkspaceId
    revision: str = Field(
        default="",
        max_length=1024,
        description="Commit, branch or tag to begin at; default the head.",
    )
    limit: int = Field(default=20, ge=1, le=100, description="Return at most so many.")
    offset: Offset = 0


class Push(Arguments):
    """Push the commits of a workspace to the repository it was made from: its branch, never by
    force. Uncommitted changes are not pushed."""

    workspace: WorkspaceId
    branch: str = Field(
        default="", max_length=240, description="Name of the branch there; default the same."
    )


class CommitEntry(BaseModel):
    """A commit."""

    id: str
    author: str
    time: str
    message: str = Field(description=f"Its first {_LONGEST_MESSAGE} characters.")


class Commits(BaseModel):
    """A page of commits."""

    commits: list[CommitEntry]
    next_offset: int | None = Field(description="Where the next page begins; None: no more.")


class Committed(BaseModel):
    """A new commit, now the head of the branch."""

    commit: CommitEntry
    skipped: list[str] = Field(description="Paths that git refuses, and why.")


class Pushed(BaseModel):
    """What a branch of the remote is now."""

    remote: str
    branch: str
    commit: str
    previous_commit: str = Field(description="Empty: the branch is new.")


async def diff(call: Call, asked: Diff) -> Answer:
    limits = git_pb2.DiffLimits(
        files=_MOST_FILES, bytes=asked.max_bytes, file_bytes=asked.max_bytes
    )
    patch, left_out, binary = bytearray(), list[str](), list[str]()
    end, path = git_pb2.DiffEnd(), ""
    source = call.cove.workspaces.named(asked.workspace).source
    try:
        events = source.diff(asked.range, asked.paths, limits=limits)
        async with aclosing(events):
            async for event in events:
                match event:
                    case git_pb2.DiffFile():
                        path = quoted(event.path, event.raw_path)
                        if event.binary:
                            binary.append(path)
                    case git_pb2.DiffPatch():
                        patch += event.data
                        if event.truncated:
                            left_out.append(path)
                    case git_pb2.DiffEnd():
                        end = event
    except ValueError as error:
        raise wrong("range", str(error)) from None
    lines = [f"{end.files} files differ, +{end.additions} -{end.deletions} lines"]
    lines += [f"binary: {each}" for each in binary]
    lines += [f"cut: {each}" for each in left_out]
    if end.files > _MOST_FILES:
        lines.append(f"[only the first {_MOST_FILES} files are shown]")
    if left_out or end.files > _MOST_FILES:
        lines.append(
            "[ask for what is cut by paths, with a larger max_bytes, or run `git diff` with "
            "workspace_exec and page through its output]"
        )
    text = patch.decode(errors="replace")
    return Answer("\n".join(lines), contents=[text] if text else [])


async def commit(call: Call, asked: Commit) -> Answer:
    author = None
    if asked.author:
        found = _AUTHOR.fullmatch(asked.author.strip())
        if not found:
            raise wrong("author", "is not of the form: Name <mail address>")
        author = (found[1], found[2])
    answer = await call.cove.workspaces.named(asked.workspace).commit(
        asked.message, author=author, paths=asked.paths, expected_head=asked.expected_head
    )
    data = Committed(
        commit=_commit(answer.commit),
        skipped=[f"{quoted(each.path, each.raw_path)}: {each.reason}" for each in answer.skipped],
    )
    left = "".join(f"\nleft out: {each}" for each in data.skipped)
    return Answer(f"committed {_line(data.commit)}{left}", data)


async def log(call: Call, asked: Log) -> Answer:
    commits = call.cove.workspaces.named(asked.workspace).log(asked.revision)
    found, more = await page(commits, asked.offset, asked.limit)
    data = Commits(commits=[_commit(each) for each in found], next_offset=more)
    rows = [
        f"commit {each.id}\nauthor {each.author}, {each.time}\n\n{each.message}\n"
        for each in data.commits
    ]
    return Answer(listed(rows, "commits", more), data)


def _commit(commit: git_pb2.Commit) -> CommitEntry:
    author = commit.author
    return CommitEntry(
        id=commit.id,
        author=f"{author.name} <{author.email}>",
        time=author.time.ToJsonString(),
        message=commit.message.strip()[:_LONGEST_MESSAGE],
    )


def _line(commit: CommitEntry) -> str:
    return f"{commit.id[:_SHORT]} {commit.message.partition(chr(10))[0]}"


async def push(call: Call, asked: Push) -> Answer:
    workspace = await call.cove.workspaces.get(asked.workspace)
    answer = await workspace.push(
        branch=asked.branch,
        credentials=call.remotes.credentials(workspace.message.spec.repository),
    )
    data = Pushed(
        remote=answer.remote,
        branch=answer.remote_branch,
        commit=answer.commit,
        previous_commit=answer.previous_commit,
    )
    before = data.previous_commit[:_SHORT] or "new"
    return Answer(
        f"pushed {before}..{data.commit[:_SHORT]} to branch {data.branch} of {data.remote}", data
    )


TOOLS: Final = (
    Tool(name="workspace_diff", title="Show changes", arguments=Diff, run=diff, reads=True),
    Tool(
        name="workspace_commit",
        title="Commit changes",
        arguments=Commit,
        run=commit,
        answer=Committed,
    ),
    Tool(
        name="workspace_log",
        title="List commits",
        arguments=Log,
        run=log,
        answer=Commits,
        reads=True,
    ),
    Tool(
        name="workspace_push",
        title="Push commits",
        arguments=Push,
        run=push,
        answer=Pushed,
        repeats=True,
        reaches_out=True,
    ),
)
