"""`cove status diff commit log branches push`."""

import argparse
import re
from contextlib import aclosing
from typing import Final

from cove.cli.commands.arguments import pairs
from cove.cli.console import Console, printable, quoted
from cove.cli.credentials import credentials
from cove.cli.errors import UsageError
from cove.cli.progress import waiting
from cove.cli.workspaces import repository_url
from cove.client import Client
from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2

_INDEX: Final = {
    git_pb2.StatusEntry.INDEX_STATE_ADDED: "A",
    git_pb2.StatusEntry.INDEX_STATE_MODIFIED: "M",
    git_pb2.StatusEntry.INDEX_STATE_DELETED: "D",
    git_pb2.StatusEntry.INDEX_STATE_RENAMED: "R",
    git_pb2.StatusEntry.INDEX_STATE_TYPE_CHANGED: "T",
    git_pb2.StatusEntry.INDEX_STATE_UNMERGED: "U",
}
_WORK: Final = {
    git_pb2.StatusEntry.WORK_STATE_MODIFIED: "M",
    git_pb2.StatusEntry.WORK_STATE_DELETED: "D",
    git_pb2.StatusEntry.WORK_STATE_RENAMED: "R",
    git_pb2.StatusEntry.WORK_STATE_TYPE_CHANGED: "T",
    git_pb2.StatusEntry.WORK_STATE_UNMERGED: "U",
}
_AUTHOR: Final = re.compile(r"([^<>]*?)\s*<([^<>\s]*)>")
_COLOURS: Final = {b"+": b"\x1b[32m", b"-": b"\x1b[31m", b"@": b"\x1b[36m", b"d": b"\x1b[1m"}
_PLAIN: Final = b"\x1b[m"
_SHORT: Final = 10


async def status(cove: Client, options: argparse.Namespace, console: Console) -> int:
    found = await cove.workspaces.named(options.workspace).status()
    if console.as_json:
        console.json(found)
        return 0
    counts = [f"{name} {number}" for name, number in _distance(found) if number]
    console.line(f"## {printable(found.branch)}" + (f" [{', '.join(counts)}]" if counts else ""))
    for entry in found.entries:
        old = quoted(entry.old_path, entry.raw_old_path)
        arrow = f"{old} -> " if old else ""
        console.line(f"{_letters(entry)} {arrow}{quoted(entry.path, entry.raw_path)}")
    if found.truncated:
        console.note(f"{found.total - len(found.entries)} more are not shown")
    return 0


def _distance(found: git_pb2.WorktreeStatus) -> tuple[tuple[str, int], ...]:
    return ("ahead", found.ahead), ("behind", found.behind)


def _letters(entry: git_pb2.StatusEntry) -> str:
    if entry.work_state == git_pb2.StatusEntry.WORK_STATE_UNTRACKED:
        return "??"
    return _INDEX.get(entry.index_state, " ") + _WORK.get(entry.work_state, " ")


async def diff(cove: Client, options: argparse.Namespace, console: Console) -> int:
    workspace = cove.workspaces.named(options.workspace)
    try:
        events = workspace.diff(options.range, options.paths)
        async with aclosing(events):
            async for event in events:
                _show_diff(event, console)
    except ValueError as error:
        raise UsageError(f"--range {options.range}: {error}") from None
    return 0


def _show_diff(
    event: git_pb2.DiffFile | git_pb2.DiffPatch | git_pb2.DiffEnd, console: Console
) -> None:
    if console.as_json:
        console.json(_as_message(event))
        return
    match event:
        case git_pb2.DiffFile() if event.binary:
            console.line(f"Binary file {quoted(event.path, event.raw_path)} differs")
        case git_pb2.DiffPatch():
            console.write(_shown(event.data, console))
            if event.truncated:
                console.note("[the rest of this file is cut]")
        case git_pb2.DiffEnd() if event.truncated:
            console.note(
                f"[cut: {event.files} files differ, +{event.additions} -{event.deletions}]"
            )


def _as_message(
    event: git_pb2.DiffFile | git_pb2.DiffPatch | git_pb2.DiffEnd,
) -> pb.GetDiffResponse:
    match event:
        case git_pb2.DiffFile():
            return pb.GetDiffResponse(file=event)
        case git_pb2.DiffPatch():
            return pb.GetDiffResponse(patch=event)
        case git_pb2.DiffEnd():
            return pb.GetDiffResponse(end=event)


def _shown(patch: bytes, console: Console) -> bytes:
    """For a terminal without anything that could steer it; elsewhere as it is."""
    if not console.is_terminal:
        return patch
    lines = []
    for line in patch.splitlines(keepends=True):
        text = re.sub(rb"[\x00-\x08\x0b-\x1f\x7f]", b"?", line.rstrip(b"\n"))
        colour = _COLOURS.get(line[:1], b"") if console.has_colours else b""
        end = b"\n" if line.endswith(b"\n") else b""
        lines.append(colour + text + (_PLAIN if colour else b"") + end)
    return b"".join(lines)


async def commit(cove: Client, options: argparse.Namespace, console: Console) -> int:
    answer = await cove.workspaces.named(options.workspace).commit(
        options.message,
        author=author(options),
        trailers=pairs(options.trailer, "--trailer"),
        paths=options.paths,
        expected_head=options.expect,
        provenance=options.provenance,
        frozen=options.frozen,
    )
    for skipped in answer.skipped:
        path = quoted(skipped.path, skipped.raw_path)
        console.note(f"left out: {path}: {printable(skipped.reason)}")
    for warning in answer.warnings:
        console.note(printable(warning))
    if console.as_json:
        console.json(answer)
    else:
        console.line(f"{answer.commit.id[:_SHORT]} {_subject(answer.commit)}")
    return 0


def author(options: argparse.Namespace) -> tuple[str, str] | None:
    """Name and mail address of `--author`; None: it was not given. Raises `UsageError`."""
    if not options.author:
        return None
    found = _AUTHOR.fullmatch(options.author.strip())
    if not found:
        raise UsageError(f"--author {options.author}: not of the form NAME <MAIL>")
    return found[1], found[2]


async def log(cove: Client, options: argparse.Namespace, console: Console) -> int:
    found: list[git_pb2.Commit] = []
    async with aclosing(cove.workspaces.named(options.workspace).log(options.revision)) as commits:
        async for commit in commits:
            if len(found) >= options.n:
                break
            found.append(commit)
    if console.as_json:
        console.json(pb.ListCommitsResponse(commits=found))
        return 0
    for number, commit in enumerate(found):
        if options.oneline:
            console.line(f"{commit.id[:_SHORT]} {_subject(commit)}")
            continue
        if number:
            console.line()
        _show_commit(commit, console)
    return 0


def _show_commit(commit: git_pb2.Commit, console: Console) -> None:
    author = commit.author
    console.line(f"commit {commit.id}")
    console.line(f"Author: {printable(author.name)} <{printable(author.email)}>")
    console.line(f"Date:   {author.time.ToJsonString()}")
    console.line()
    for line in commit.message.strip().splitlines():
        console.line(f"    {printable(line)}".rstrip())


def _subject(commit: git_pb2.Commit) -> str:
    return printable(commit.message.strip().partition("\n")[0])


async def branches(cove: Client, options: argparse.Namespace, console: Console) -> int:
    found = [each async for each in cove.workspaces.named(options.workspace).branches()]
    if console.as_json:
        console.json(pb.ListBranchesResponse(branches=found))
        return 0
    for branch in found:
        own = branch.kind == git_pb2.Branch.KIND_OWN
        origin = branch.kind == git_pb2.Branch.KIND_ORIGIN
        name = f"origin/{branch.name}" if origin else branch.name
        console.line(f"{'*' if own else ' '} {branch.head_commit[:_SHORT]:<10} {printable(name)}")
    return 0


async def push(cove: Client, options: argparse.Namespace, console: Console) -> int:
    proof = credentials(options)
    async with waiting(console, f"pushing {options.workspace}"):
        answer = await cove.workspaces.named(options.workspace).push(
            remote=repository_url(options.remote),
            branch=options.branch,
            expected_remote_head=options.expect,
            credentials=proof,
            provenance=options.provenance,
        )
    if console.as_json:
        console.json(answer)
        return 0
    before = answer.previous_commit[:_SHORT] or "new"
    branch, remote = printable(answer.remote_branch), printable(answer.remote)
    console.line(f"{before}..{answer.commit[:_SHORT]} {branch} -> {remote}")
    if answer.provenance_ref:
        console.line(f"provenance {answer.provenance_ref}")
    elif options.provenance:
        console.note("no commit of the workspace has provenance: there was none to push")
    return 0
