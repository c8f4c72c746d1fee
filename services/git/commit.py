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
from services.git import history, staging, status, view
from services.git.blocking import unblocked
from services.git.cell import timed_out_as
from services.git.command import Where, check_id, git, together
from services.git.errors import HeadMoved, NothingToCommit, failed
from services.git.process import close_all
from services.git.record import Record, Records
from services.git.repository import head_ref
from services.git.staging import Skipped, Staged
from services.git.transport import STORE
from services.git.workspace import Scratch, Workspace

_UNPACK_LIMIT: Final = 200
_TIMEOUT: Final = 300
_MESSAGE: Final = "/run/cell/message"
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
    made: history.Commit


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
                return await _again(record, workspace)
            self._disk.check()
            if draft.expected_head and draft.expected_head != head:
                raise HeadMoved("the branch has moved", expected=draft.expected_head, actual=head)
            entries = await status.read_all(workspace, head)
            wanted, skipped = staging.select(entries, draft.paths)
            if not wanted:
                raise NothingToCommit("there is nothing to commit", skipped=str(len(skipped)))
            async with workspace.scratch(head) as scratch:
                async with unblocked(workspace, workspace.cell(head, scratch=scratch)):
                    staged = await staging.stage(workspace, head, scratch, wanted)
                skipped += staged.skipped
                if not staged.paths:
                    raise NothingToCommit("there is nothing to commit", skipped=str(len(skipped)))
                with workspace.repository.writing():
                    commit = await self._write(workspace, head, scratch, staged, draft)
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
                    moved, [made] = await asyncio.gather(
                        workspace.repository.update_refs([move]),
                        history.commits(workspace.repository, commit, count=1),
                    )
                    if not moved:
                        raise HeadMoved(
                            "the branch has moved", expected=head, actual=workspace.head
                        )
            workspace.forget_other_indexes(commit)
            await view.refresh(workspace, record.branch, record.repository, with_refs=False)
            return Committed(commit, skipped, made)

    async def _write(
        self, workspace: Workspace, head: str, scratch: Scratch, staged: Staged, draft: Draft
    ) -> str:
        """Bring the tree's new objects into the repository, which checks each, and commit it."""
        pack = git(workspace.where(head, scratch=scratch), "pack-objects")
        where = Where(git_dir=STORE, variables=people(draft.author, self._server, self._clock()))
        name = "unpack-objects" if len(staged.paths) <= _UNPACK_LIMIT else "index-pack"
        options = [f"-p{head}"] if head else []
        commit = git(where, "commit-tree", [*options, f"-F{_MESSAGE}"], values=[staged.tree])
        cells = workspace.cells
        store = replace(
            workspace.repository.cell(writable=True), files={_MESSAGE: message_text(draft).encode()}
        )
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
                cells.started(store, together(git(where, name), commit), stdin=reading)
            )
            close_all(ends)
            wanted = f"{staged.tree}\n^{head}\n" if head else f"{staged.tree}\n"
            packed = await source.finish(wanted.encode(), limit=1 << 20)
            if packed.code != 0:
                raise failed("pack-objects", packed.code, packed.errors)
            done = await target.finish(limit=1 << 20)
            if done.code != 0:
                raise failed(name, done.code, done.errors)
        return check_id(done.output.rstrip().rpartition(b"\n")[2])


def people(author: Person | None, server: Person, moment: float) -> dict[str, str]:
    """Variables that say who makes a commit, at `moment` in seconds since the epoch."""
    author = author or server
    date = f"@{int(moment)} +0000"
    return {
        "GIT_AUTHOR_NAME": author.name,
        "GIT_AUTHOR_EMAIL": author.email,
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_NAME": server.name,
        "GIT_COMMITTER_EMAIL": server.email,
        "GIT_COMMITTER_DATE": date,
    }


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


def message_text(draft: Draft) -> str:
    """The whole message, trailers and all."""
    text = draft.message.rstrip()
    if draft.trailers:
        lines = [f"{key}: {value}" for key, value in draft.trailers]
        last = text.rsplit("\n\n", 1)
        continues = len(last) == 2 and all(_TRAILER.match(line) for line in last[1].splitlines())
        text += ("\n" if continues else "\n\n") + "\n".join(lines)
    return f"{text}\n"


async def _again(record: Record, workspace: Workspace) -> Committed:
    skipped = [Skipped(os.fsencode(path), reason) for path, reason in record.last_skipped]
    [made] = await history.commits(workspace.repository, record.last_commit, count=1)
    return Committed(record.last_commit, skipped, made)
