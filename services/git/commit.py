"""Commits what is in a worktree, from outside of its sandbox.

The cell that sees the files plans the tree, and sends what is new in it as a pack, with the
commit that is written here at its end. In a cell that sees no file of a worktree the pack goes,
checked, into the repository, as that of a remote would; then the branch moves.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from hashlib import sha1
from typing import Final

from servicekit.disk import DiskGuard
from servicekit.errors import InvalidArgument
from services.git import changes, history, inside
from services.git.beside import beside
from services.git.cell import timed_out_as
from services.git.changes import ATTEMPTS, UNSTABLE, Planned, Skipped
from services.git.command import Where, git
from services.git.errors import CellLost, HeadMoved, NothingToCommit, failed
from services.git.process import Result, close_all
from services.git.provenance import Account, Notary
from services.git.record import Record, Records
from services.git.repository import head_ref
from services.git.transport import STORE
from services.git.workspace import Workspace

_UNPACK_LIMIT: Final = 500
"""Objects, above which a pack is kept as it is."""
_UNPACK_BYTES: Final = 32 << 20
_TIMEOUT: Final = 300
_REFUSALS: Final = 20
"""Contents that git refuses, until a commit is given up."""
_TRAILER: Final = re.compile(r"[A-Za-z0-9-]+: ")
_REFUSED: Final = re.compile(r"(?:error in|object) (?:blob )?([0-9a-f]{40}): (\w+)")
_CRUD: Final = " .,:;<>\"\\'" + "".join(map(chr, range(33)))


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
    provenance: Account | None = None
    """To be signed for the commit, if anything."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The new head, and what it leaves out."""

    commit: str
    skipped: Sequence[Skipped]
    made: history.Commit


class _Refused(Exception):
    """Git does not take a content."""

    def __init__(self, result: Result) -> None:
        found = _REFUSED.search(result.errors)
        self.result = result
        self.object = found[1] if found else ""
        self.rule = found[2] if found else ""


class Committer:
    def __init__(
        self,
        records: Records,
        server: Person,
        disk: DiskGuard,
        clock: Callable[[], float] = time.time,
        notary: Notary | None = None,
    ) -> None:
        self._notary = notary
        self._records = records
        self._disk = disk
        self._server = server
        self._clock = clock

    async def commit(self, record: Record, workspace: Workspace, draft: Draft) -> Committed:
        """Make it. The same request id again returns the same commit.

        Raises `HeadMoved`, `NothingToCommit` and `Diverged`.
        """
        async with workspace.lock:
            record = self._records.get(record.uid)
            head = workspace.head
            if draft.request_id and (draft.request_id, head) == (
                record.last_request,
                record.last_commit,
            ):
                return await self._attested(workspace, await _again(record, workspace), draft)
            self._disk.check()
            if draft.expected_head and draft.expected_head != head:
                raise HeadMoved("the branch has moved", expected=draft.expected_head, actual=head)
            inside.check_followed(workspace)
            done = await self._commit(record, workspace, head, draft)
            return await self._attested(workspace, done, draft)

    async def _attested(self, workspace: Workspace, done: Committed, draft: Draft) -> Committed:
        """The same, with the note that was asked for, which a crash may have come before."""
        if draft.provenance is not None and self._notary is not None:
            await self._notary.attest(workspace, done.made, draft.provenance)
        return done

    async def _commit(
        self, record: Record, workspace: Workspace, head: str, draft: Draft
    ) -> Committed:
        unwanted: dict[bytes, str] = {}
        refusals = attempt = 0
        while True:
            planned = await changes.plan(workspace, head, draft.paths, unwanted)
            if not planned.changed:
                raise NothingToCommit(
                    "there is nothing to commit", skipped=str(len(planned.skipped))
                )
            made = self._write(planned.tree, head, draft)
            try:
                unstable = await self._store(record, workspace, head, planned, made, draft)
            except _Refused as error:
                refusals += 1
                paths = await _paths_of(workspace, head, error.object)
                if not paths or refusals > _REFUSALS:
                    raise failed("unpack-objects", error.result.code, error.result.errors) from None
                unwanted |= dict.fromkeys(paths, f"git does not allow this content: {error.rule}")
                continue
            if not unstable:
                break
            attempt += 1
            if attempt >= ATTEMPTS:
                unwanted |= dict.fromkeys(unstable, UNSTABLE)
        inside.tell(workspace, record.branch, head, made.commit.id)
        return Committed(made.commit.id, planned.skipped, made.commit)

    async def _store(
        self,
        record: Record,
        workspace: Workspace,
        head: str,
        planned: Planned,
        made: "_Made",
        draft: Draft,
    ) -> list[bytes]:
        """Bring the objects into the repository and move the branch.

        Returns paths whose files changed meanwhile; then nothing has happened.
        """
        small = planned.objects <= _UNPACK_LIMIT and planned.size <= _UNPACK_BYTES
        name = "unpack-objects" if small else "index-pack"
        where = Where(git_dir=STORE)
        # Written before the branch moves to it: a request that comes again finds its commit.
        self._records.keep(
            replace(
                record,
                last_request=draft.request_id,
                last_commit=made.commit.id,
                last_skipped=tuple((os.fsdecode(one.path), one.reason) for one in planned.skipped),
            )
        )
        taking = git(where, name, config=[("core.fsync", "none")] if small else ())
        landing = {
            "store": STORE,
            "argv": list(taking.argv),
            "environment": dict(taking.env),
            "loose": small,
            "ref": head_ref(record.uid),
            "old": head,
            "new": made.commit.id,
        }
        repository = workspace.repository
        reading, writing = os.pipe()
        ends = [reading, writing]
        async with AsyncExitStack() as stack:
            stack.callback(close_all, ends)
            stack.enter_context(repository.writing())
            stack.enter_context(timed_out_as(name))
            await stack.enter_async_context(asyncio.timeout(_TIMEOUT))
            taken = await stack.enter_async_context(
                beside(repository.land(landing, ends.pop(0), timeout=_TIMEOUT))
            )
            try:
                answer = await workspace.ask(
                    "send", head, [writing], commit=changes.text(made.data)
                )
            except CellLost:
                answer = None
            close_all(ends)
            done = await taken
        if answer is not None and (unstable := changes.unstable(answer)):
            return unstable
        if workspace.head == made.commit.id:
            return []
        if workspace.head != head:
            raise HeadMoved("the branch has moved", expected=head, actual=workspace.head)
        raise _Refused(done)

    def _write(self, tree: str, head: str, draft: Draft) -> "_Made":
        moment = int(self._clock())
        author, server = (
            history.Signature(_clean(one.name), _clean(one.email), moment)
            for one in (draft.author or self._server, self._server)
        )
        text = message_text(draft)
        lines = [
            f"tree {tree}",
            *([f"parent {head}"] if head else []),
            f"author {author.name} <{author.email}> {moment} +0000",
            f"committer {server.name} <{server.email}> {moment} +0000",
        ]
        data = "\n".join([*lines, "", text]).encode()
        header = b"commit %d\0" % len(data)
        message, trailers = history.split_trailers(text)
        commit = history.Commit(
            id=sha1(header + data, usedforsecurity=False).hexdigest(),
            parents=[head] if head else [],
            tree=tree,
            author=author,
            committer=server,
            message=message,
            trailers=trailers,
        )
        return _Made(commit, data)


@dataclass(frozen=True, slots=True)
class _Made:
    """A commit, and how git stores it."""

    commit: history.Commit
    data: bytes


async def _paths_of(workspace: Workspace, head: str, identifier: str) -> list[bytes]:
    if not identifier:
        return []
    answer = await workspace.ask("which", head, id=identifier)
    return [changes.raw(path) for path in answer["paths"]]


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


def _clean(text: str) -> str:
    """As git does with names and addresses."""
    return re.sub("[\n<>\0]", "", text.strip(_CRUD))


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
