"""What a new worktree shall be, and its record at the beginning."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from services.git import partial
from services.git.origins import Caller
from services.git.record import Record
from services.git.remote import Remote

WARNINGS: Final[Mapping[bool | None, tuple[str, ...]]] = MappingProxyType(
    {
        False: (),
        True: ("the repository has uncommitted changes, which were not taken",),
        None: ("uncommitted changes of the repository, if it has any, were not taken",),
    }
)
"""By whether a repository of this machine has changes that are not committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a new worktree shall be."""

    uid: str
    repository: str
    revision: str
    branch: str
    max_staleness: float = 0
    depth: int = 0
    """Commits of history; 0: all."""
    filter: str = ""
    """Which contents, as git's --filter says it; empty: all."""
    plain: bool = False
    """Whether the files must be one directory."""


def begin(wanted: Wanted, caller: Caller, remote: Remote | None, moment: float) -> Record:
    """The record of a worktree that is going to be made, at `moment` in Unix seconds."""
    return Record(
        uid=wanted.uid,
        tenant=caller.tenant,
        asked=wanted.repository,
        repository=remote.url if remote else "",
        key=key_of(wanted, remote),
        depth=wanted.depth,
        filter=wanted.filter,
        plain=wanted.plain,
        revision=wanted.revision,
        branch=wanted.branch,
        create_time=moment,
    )


def key_of(wanted: Wanted, remote: Remote | None) -> str:
    """Names its repository among those of a tenant."""
    if remote is None:
        return f"own-{wanted.uid}"
    part = partial.wanted(wanted.depth, wanted.filter, wanted.revision)
    return part.key(remote.key) if part else remote.key


def is_same(record: Record, wanted: Wanted, caller: Caller) -> bool:
    """Whether the record is of what is wanted."""
    return (
        *(record.tenant, record.asked, record.revision, record.branch),
        *(record.depth, record.filter, record.plain),
    ) == (
        *(caller.tenant, wanted.repository, wanted.revision, wanted.branch),
        *(wanted.depth, wanted.filter, wanted.plain),
    )
