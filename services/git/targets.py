"""Branches that a merge lands on: of the origin, or without one of the store of our own."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from servicekit.errors import InvalidArgument
from services.git.errors import (
    BranchCheckedOut,
    BranchInvalid,
    HeadMoved,
    PushRejected,
    RevisionNotFound,
)
from services.git.names import check_branch
from services.git.origins import Caller, Origins
from services.git.push import Pusher
from services.git.push import Target as Pushed
from services.git.record import Record
from services.git.remote import Rules
from services.git.repositories import Repositories
from services.git.repository import Repository
from services.git.workspace import Workspace

_NOTHING: Final = "0" * 40
_OWN_DEFAULT: Final = "main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A branch, and where it was at `time`; no head: it is not there yet."""

    name: str
    head: str
    time: float


class Targets:
    def __init__(
        self,
        rules: Rules,
        repositories: Repositories,
        origins: Origins,
        pusher: Pusher,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._repositories = repositories
        self._origins = origins
        self._pusher = pusher
        self._clock = clock

    async def known(self, record: Record, repository: Repository, name: str) -> Target:
        """The branch as it is here. Raises `RevisionNotFound`."""
        ref = ref_of(record, name)
        head = (await repository.refs(ref)).get(ref, "")
        if not record.repository:
            return Target(name=name, head=head, time=self._clock())
        if not head:
            raise _missing(name)
        return Target(name=name, head=head, time=self._origins.asked_at(repository))

    async def fresh(
        self, record: Record, workspace: Workspace, name: str, caller: Caller
    ) -> Target:
        """The branch as it is now: the origin is asked. Raises `RevisionNotFound`, and what
        its refusal makes."""
        repository = workspace.repository
        if not record.repository:
            return await self.known(record, repository, name)
        remote = self._rules.parse(record.repository)
        async with self._repositories.locked(repository):
            head, moment = await self._origins.branch(repository, remote, name, caller)
        if not head:
            raise _missing(name)
        return Target(name=name, head=head, time=moment)

    async def move(
        self, record: Record, workspace: Workspace, target: Target, commit: str, caller: Caller
    ) -> None:
        """Move it to `commit`, if it is still where it was.

        Raises `HeadMoved`, and what a push is refused with.
        """
        if not record.repository:
            await self._move_own(workspace.repository, target, commit)
            return
        try:
            wanted = Pushed(branch=target.name, expected_head=target.head)
            await self._pusher.send(record, workspace, commit, wanted, caller)
        except BranchCheckedOut:
            raise BranchCheckedOut(
                "the target is checked out in the origin",
                branch=target.name,
                remedy="Merge into another branch, check out another one there, or push the"
                " workspace's branch and merge it there.",
            ) from None
        except PushRejected:
            # Git's words for a race lost at the very end are those for many things.
            now = await self.fresh(record, workspace, target.name, caller)
            if now.head != target.head:
                raise _moved(target, now.head) from None
            raise

    async def _move_own(self, repository: Repository, target: Target, commit: str) -> None:
        ref = f"refs/heads/{target.name}"
        async with self._repositories.locked(repository):
            update = f"update {ref} {commit} {target.head or _NOTHING}"
            if await repository.update_refs([update]):
                return
            head = (await repository.refs(ref)).get(ref, "")
        if head != target.head:
            raise _moved(target, head)
        raise BranchInvalid(
            "target", "the name of another branch is in its way", branch=target.name
        )


def name_of(record: Record, asked: str) -> str:
    """The branch that is meant. Raises `InvalidArgument` and `BranchInvalid`."""
    default = record.base_branch if record.repository else _OWN_DEFAULT
    name = asked.removeprefix("refs/heads/") or default
    if not name:
        raise InvalidArgument(
            "target", "required: the workspace was made from a tag or a commit, not from a branch"
        )
    check_branch(name, "target")
    if name == record.branch:
        raise InvalidArgument(
            "target",
            "it is the workspace's own branch",
            branch=name,
            remedy="To bring another branch into the workspace, merge inside it:"
            " cove exec WORKSPACE git merge BRANCH. To publish its own branch, push it.",
        )
    return name


def ref_of(record: Record, name: str) -> str:
    """The ref in the repository that says where the branch is."""
    return f"refs/remotes/origin/{name}" if record.repository else f"refs/heads/{name}"


def _missing(name: str) -> RevisionNotFound:
    return RevisionNotFound(
        "the origin has no such branch",
        revision=name,
        remedy="Name a branch that the origin has; push the workspace's branch to make a new one.",
    )


def _moved(target: Target, head: str) -> HeadMoved:
    return HeadMoved(
        "the target moved while it was merged",
        expected=target.head,
        actual=head,
        branch=target.name,
    )
