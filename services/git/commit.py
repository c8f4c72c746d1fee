"""Commits what is in a worktree, from outside of its sandbox.

Trees are written in a cell that sees the files, into a store of its own; the
objects then go, checked, into the repository, as those of a remote would; and
the commit is made and the branch moved where no file of a worktree is seen.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final

from servicekit.disk import DiskGuard
from servicekit.errors import InvalidArgument
from services.git import staging, status, view
from services.git.cell import timed_out_as
from services.git.command import Where, git, is_commit_id
from services.git.errors import GitFailed, HeadMoved, NothingToCommit
from services.git.process import close_all
from services.git.record import Record, Records
from services.git.repository import head_ref
from services.git.staging import Skipped
from services.git.transport import STORE
from services.git.workspace import Scratch, Workspace

_UNPACK_LIMIT: Final = 200
_TIMEOUT: Final = 300
_NOTHING: Final = "0" * 40
_TRAILER: Final = re.compile(r"[A-Za-z0-9-]+: ")
_CRUD: Final = " .,:;<>\"\\'"


@dataclass(frozen=True, slots=True)
class Person:
    """Who made a commit."""

    name: str
    email: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A commit to be made."""

    message: str
    author: Person | None = None
    trailers: Sequence[tuple[str, str]] = ()
    expected_head: str = ""
    paths: Sequence[bytes] = ()
    """Only what is at or below these; empty: all."""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """The new head, and what it leaves out."""

    commit: str
    skipped: Sequence[Skipped]


class Committer:
    def __init__(
        self,
        records: Records,
        server: Person,
        disk: DiskGuard,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._records = records
        self._disk = disk
        self._server = server
        self._clock = clock

    async def commit(self, record: Record, workspace: Workspace, draft: Draft) -> Committed:
        """Make it. The same request id again returns the same commit.

        Raises `HeadMoved` and `NothingToCommit`.
        """
        async with workspace.lock:
            record = self._records.get(record.uid)
            head = workspace.head
            if draft.request_id and (draft.request_id, head) == (
                record.last_request,
                record.last_commit,
            ):
                return _again(record)
            self._disk.check()
            if draft.expected_head and draft.expected_head != head:
                raise HeadMoved("the branch has moved", expected=draft.expected_head, actual=head)
            entries = await status.read(workspace, head)
            wanted, skipped = staging.select(entries, draft.paths)
            if not wanted:
                raise NothingToCommit("there is nothing to commit", skipped=str(len(skipped)))
            async with workspace.scratch(head) as scratch:
                staged, refused = await staging.stage(workspace, head, scratch, wanted)
                skipped += refused
                if not staged:
                    raise NothingToCommit("there is nothing to commit", skipped=str(len(skipped)))
                with workspace.repository.writing():
                    tree = await self._write_tree(workspace, head, scratch)
                    await self._transfer(workspace, head, scratch, tree, len(staged))
                    commit = await self._write_commit(workspace, head, tree, draft)
                    workspace.adopt_index(scratch, commit)
                    self._records.keep(
                        replace(
                            record,
                            last_request=draft.request_id,
                            last_commit=commit,
                            last_skipped=tuple(
                                (os.fsdecode(one.path), one.reason) for one in skipped
                            ),
                        )
                    )
                    move = f"update {head_ref(record.uid)} {commit} {head or _NOTHING}"
                    if not await workspace.repository.update_refs([move]):
                        raise HeadMoved(
                            "the branch has moved", expected=head, actual=workspace.head
                        )
            workspace.forget_other_indexes(commit)
            await view.refresh(workspace, record.branch, record.repository, with_refs=False)
            return Committed(commit, skipped)

    async def _write_tree(self, workspace: Workspace, head: str, scratch: Scratch) -> str:
        command = git(workspace.where(head, scratch=scratch), "write-tree")
        cell = workspace.cell(head, scratch=scratch)
        output = await workspace.cells.check(cell, command, timeout=_TIMEOUT)
        return check_id(output)

    async def _transfer(
        self, workspace: Workspace, head: str, scratch: Scratch, tree: str, paths: int
    ) -> None:
        """Bring the tree's new objects into the repository, which checks each of them."""
        pack = git(workspace.where(head, scratch=scratch), "pack-objects")
        name = "unpack-objects" if paths <= _UNPACK_LIMIT else "index-pack"
        unpack = git(Where(git_dir=STORE), name)
        cells = workspace.cells
        reading, writing = os.pipe()
        ends = [reading, writing]
        async with AsyncExitStack() as stack:
            stack.callback(close_all, ends)
            stack.enter_context(timed_out_as("pack-objects"))
            await stack.enter_async_context(asyncio.timeout(_TIMEOUT))
            source = await stack.enter_async_context(
                cells.started(workspace.cell(head, scratch=scratch), pack, stdout=writing)
            )
            target = await stack.enter_async_context(
                cells.started(workspace.repository.cell(writable=True), unpack, stdin=reading)
            )
            close_all(ends)
            wanted = f"{tree}\n^{head}\n" if head else f"{tree}\n"
            for running, command in ((source, "pack-objects"), (target, name)):
                stdin = wanted.encode() if running is source else b""
                result = await running.finish(stdin, limit=1 << 20)
                if result.code != 0:
                    raise GitFailed(command, result.code, result.errors)

    async def _write_commit(self, workspace: Workspace, head: str, tree: str, draft: Draft) -> str:
        author = draft.author or self._server
        moment = f"@{int(self._clock())} +0000"
        variables = {
            "GIT_AUTHOR_NAME": author.name,
            "GIT_AUTHOR_EMAIL": author.email,
            "GIT_AUTHOR_DATE": moment,
            "GIT_COMMITTER_NAME": self._server.name,
            "GIT_COMMITTER_EMAIL": self._server.email,
            "GIT_COMMITTER_DATE": moment,
        }
        options = [f"-p{head}", "-F-"] if head else ["-F-"]
        where = Where(git_dir=STORE, variables=variables)
        command = git(where, "commit-tree", options, values=[tree])
        cell = workspace.repository.cell(writable=True)
        output = await workspace.cells.check(cell, command, _message(draft).encode())
        return check_id(output)


def check_id(output: bytes) -> str:
    """The object id that a command printed; what else it prints is not believed."""
    text = output.decode("ascii", "replace").strip()
    if not is_commit_id(text):
        raise ValueError("git printed no object id")
    return text


def check_draft(draft: Draft) -> Draft:
    """Raises `InvalidArgument` for what no commit can hold."""
    if not draft.message.strip() or "\0" in draft.message:
        raise InvalidArgument("commit.message", "required, and without NUL")
    if draft.author is not None and not draft.author.name.strip(_CRUD):
        raise InvalidArgument("commit.author.name", "required where an author is given")
    for path in draft.paths:
        if path.startswith(b"/") or b".." in path.split(b"/") or b"\0" in path:
            raise InvalidArgument("paths", "a path is relative to the worktree's root")
    return draft


def _message(draft: Draft) -> str:
    text = draft.message.rstrip()
    if draft.trailers:
        lines = [f"{key}: {value}" for key, value in draft.trailers]
        last = text.rsplit("\n\n", 1)
        continues = len(last) == 2 and all(_TRAILER.match(line) for line in last[1].splitlines())
        text += ("\n" if continues else "\n\n") + "\n".join(lines)
    return f"{text}\n"


def _again(record: Record) -> Committed:
    return Committed(
        record.last_commit,
        [Skipped(os.fsencode(path), reason) for path, reason in record.last_skipped],
    )
