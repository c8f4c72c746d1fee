"""Pushes a worktree's branch to a remote."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from servicekit.disk import DiskFull
from services.git import provenance
from services.git.errors import (
    BranchCheckedOut,
    HeadMoved,
    NonFastForward,
    NoRemote,
    PushRejected,
    RemoteForbidden,
    RevisionNotFound,
)
from services.git.names import check_branch
from services.git.origins import Caller
from services.git.record import Record
from services.git.remote import Remote, Rules
from services.git.transport import Transport
from services.git.workspace import Workspace

_RANGE: Final = re.compile(r"([0-9a-f]{40})\.{2,3}([0-9a-f]{40})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to. Empty: the origin, the worktree's own branch, only forward."""

    url: str = ""
    branch: str = ""
    expected_head: str = ""
    """The commit there that may be overwritten."""
    provenance: bool = False
    """Also what is said of the worktree's commits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What is there now; `previous` is empty when the branch is new there, `provenance_ref`
    when no provenance was pushed."""

    url: str
    branch: str
    commit: str
    previous: str
    provenance_ref: str = ""


class Pusher:
    def __init__(self, rules: Rules, transport: Transport) -> None:
        self._rules = rules
        self._transport = transport

    async def push(
        self, record: Record, workspace: Workspace, target: Target, caller: Caller
    ) -> Pushed:
        """Push the head. Never forces, except over exactly `expected_head`.

        Raises as `send`.
        """
        head = workspace.head
        if not head:
            raise RevisionNotFound("the branch has no commit yet", revision=record.branch)
        return await self.send(record, workspace, head, target, caller)

    async def send(
        self, record: Record, workspace: Workspace, commit: str, target: Target, caller: Caller
    ) -> Pushed:
        """As `push`, any commit of the repository.

        Raises `NoRemote`, `NonFastForward`, `BranchCheckedOut`, `PushRejected`,
        `HeadMoved`, and what a remote's refusal makes.
        """
        url = target.url or record.repository
        if not url:
            raise NoRemote("the worktree has no origin: name a remote")
        branch = check_branch(target.branch or record.branch, "remote_branch")
        there = f"refs/heads/{branch}"
        lease = f"{there}:{target.expected_head}" if target.expected_head else None
        with _named("remote" if target.url else "repository"):
            remote = self._rules.parse(url)
            notes = await self._push_notes(remote, workspace, caller) if target.provenance else ""
            result = await self._transport.push(
                remote, caller.credentials, workspace.repository.path, f"{commit}:{there}", lease
            )
        previous = _read(result.output.decode("utf-8", "replace"), there, commit, target)
        if remote.url == record.repository:
            await self._note(workspace, branch, commit)
        return Pushed(
            url=remote.url, branch=branch, commit=commit, previous=previous, provenance_ref=notes
        )

    async def _push_notes(self, remote: Remote, workspace: Workspace, caller: Caller) -> str:
        """Push what is signed of the commits, before them; its ref, or nothing if there is none."""
        ref = provenance.notes_ref(workspace.uid)
        if not await provenance.is_kept(workspace.repository, workspace.uid):
            return ""
        result = await self._transport.push(
            remote, caller.credentials, workspace.repository.path, f"{ref}:{ref}", None
        )
        flag, summary = _told(result.output.decode("utf-8", "replace"), ref)
        if flag == "!":
            raise PushRejected(
                "the remote refused the provenance", branch=ref, cause=_reason(summary)
            )
        return ref

    async def _note(self, workspace: Workspace, branch: str, head: str) -> None:
        """The origin's branch is where we put it: no need to ask, nor to wait for who does."""
        update = f"update refs/remotes/origin/{branch} {head}"
        with suppress(DiskFull):  # The next fetch notes it.
            await workspace.repository.update_refs([update])


@contextmanager
def _named(field: str) -> Iterator[None]:
    """A remote that is refused was given in `field`."""
    try:
        yield
    except RemoteForbidden as error:
        problem, rule = error.violations[0].problem, error.metadata["rule"]
        told = RemoteForbidden(field, problem, remedy=error.remedy, rule=rule)
        told.metadata |= error.metadata
        raise told from None


def _read(output: str, there: str, head: str, target: Target) -> str:
    """Read `git push --porcelain`: the head that was there before, or the refusal's reason."""
    flag, summary = _told(output, there)
    if flag == "!":
        raise _refusal(summary, there.removeprefix("refs/heads/"), target)
    if flag == "=":
        return head
    found = _RANGE.search(summary)
    return found[1] if found else ""


def _told(output: str, there: str) -> tuple[str, str]:
    """What is said of one ref: a flag of one character, and a summary."""
    for line in output.splitlines():
        flag, _, rest = line.partition("\t")
        refs, _, summary = rest.partition("\t")
        if refs.rpartition(":")[2] == there:
            return flag, summary
    raise PushRejected("the remote did not say what it did", branch=there)


def _reason(summary: str) -> str:
    reason = summary.partition("(")[2].rstrip(")")
    return "".join(char for char in reason if char.isprintable())[:300]


def _refusal(summary: str, branch: str, target: Target) -> Exception:
    reason = _reason(summary)
    if "stale info" in reason:
        return HeadMoved(
            "the remote branch is not at the expected commit",
            expected=target.expected_head,
            actual="",
            branch=branch,
        )
    if reason in ("non-fast-forward", "fetch first", "needs force"):
        return NonFastForward(
            "the remote branch has commits that this one has not",
            branch=branch,
            remedy="Push to another branch, merge the remote branch first, or name its head"
            " (expected_remote_head, --expect) to overwrite it.",
        )
    if "currently checked out" in reason:
        return BranchCheckedOut(
            "the branch is checked out in the repository pushed to",
            branch=branch,
            remedy="Push to another branch, or check out another one there.",
        )
    return PushRejected("the remote refused the push", branch=branch, cause=reason)
