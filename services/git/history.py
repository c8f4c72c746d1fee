"""Commits and branches of a worktree."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.git import refs
from services.git.command import Where, git
from services.git.record import Record
from services.git.repository import Repository
from services.git.transport import STORE
from services.git.workspace import Workspace

_FIELDS: Final = ("%H", "%P", "%T", "%an", "%ae", "%at", "%cn", "%ce", "%ct", "%B")
_BYTES: Final = 48 << 20
"""Of all commits of a page: no answer may be larger than 64 MiB."""
_LATEST: Final = 253_402_300_799
"""The end of the year 9999, in seconds since the epoch: no later time can be told."""
_ORIGIN: Final = "refs/remotes/origin/"
_TRAILER: Final = re.compile(r"([A-Za-z0-9-]+): (.+)")


@dataclass(frozen=True, slots=True)
class Signature:
    """Who and when, in seconds since the epoch."""

    name: str
    email: str
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit; `message` is without the trailers at its end."""

    id: str
    parents: Sequence[str]
    tree: str
    author: Signature
    committer: Signature
    message: str
    trailers: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A branch that a worktree can see; `own` is its own, `fetched` one of its origin."""

    name: str
    head: str
    own: bool
    fetched: bool = False


async def commits(repository: Repository, start: str, *, skip: int = 0, count: int) -> list[Commit]:
    """At most `count` commits from `start` back, newest first, after `skip` of them."""
    form = "%x00".join(_FIELDS)
    options = ["-z", f"--format={form}", f"--skip={skip}", f"--max-count={count}"]
    command = git(Where(git_dir=STORE), "log", options, values=[start])
    output = await repository.cells.check(repository.cell(), command, limit=_BYTES)
    fields = output.decode("utf-8", "replace").split("\0")[:-1]
    each = [iter(fields)] * len(_FIELDS)
    return [_commit(*one) for one in zip(*each, strict=True)]


async def branches(record: Record, workspace: Workspace) -> list[Branch]:
    """The worktree's own first, then the others in the order of their names.

    They are the origin's; without one, those of its repository.
    """
    prefix = _ORIGIN if record.repository else "refs/heads/"
    found = await workspace.repository.refs(prefix)
    own = Branch(name=record.branch, head=workspace.head, own=True)
    return [own] + [
        Branch(name=name, head=head, own=False, fetched=bool(record.repository))
        for name, head in sorted(
            (_shown(name.removeprefix(prefix)), head) for name, head in found.items()
        )
    ]


def _shown(name: str) -> str:
    """As text, where a name of the origin is none."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


async def distance(record: Record, workspace: Workspace, head: str) -> tuple[int, int]:
    """Commits on the branch that its base has not, and those of the base's branch it has not.

    The second counts at the origin, as last fetched; 0 where the base was no branch.
    """
    if not head:
        return 0, 0
    upstream = f"{_ORIGIN}{record.base_branch}"
    wanted = [upstream] if record.base_branch else []
    theirs = refs.read(workspace.repository.path, wanted).get(upstream, "")
    if workspace.counted[0] != (head, theirs):
        repository, base = workspace.repository, record.base_commit
        ahead, behind = await _apart(repository, head, base)
        if theirs != base:  # Nearly always it is the base still.
            _, behind = await _apart(repository, head, theirs) if theirs else (0, 0)
        workspace.counted = (head, theirs), (ahead, behind)
    return workspace.counted[1]


async def _apart(repository: Repository, one: str, other: str) -> tuple[int, int]:
    """How many commits each of two has that the other, which may be empty, has not."""
    if one == other:
        return 0, 0
    options, values = ["--left-right", "--count"], [f"{one}...{other}"] if other else [one]
    command = git(Where(git_dir=STORE), "rev-list", options, values=values)
    counted = await repository.cells.check(repository.cell(), command)
    left, right = (int(number) for number in counted.split())
    return (left, right) if other else (right, 0)  # Without another side all are on the right.


async def is_only_here(workspace: Workspace) -> bool:
    """Whether the head has commits that no branch or tag of the origin has."""
    head = workspace.head
    if not head:
        return False
    options = ["--count", "--max-count=1", "--not", "--remotes", "--tags", "--not"]
    repository = workspace.repository
    # Of a part that is a single commit no branch names it.
    known = [f"^{workspace.checkout}"] if repository.partial and workspace.checkout else []
    command = git(Where(git_dir=STORE), "rev-list", options, values=[head, *known])
    return int(await repository.cells.check(repository.cell(), command)) > 0


def _commit(identity: str, parents: str, tree: str, *rest: str) -> Commit:
    """What a commit says of people and times may be anything that fits into a line."""
    name, email, time, committer, committer_email, committer_time, text = rest
    message, trailers = split_trailers(text)
    return Commit(
        id=identity,
        parents=parents.split(),
        tree=tree,
        author=Signature(name, email, _time(time)),
        committer=Signature(committer, committer_email, _time(committer_time)),
        message=message,
        trailers=trailers,
    )


def _time(text: str) -> int:
    if not text.isdecimal():
        return 0
    return int(text) if len(text) < len(str(_LATEST)) else min(int(text[:18]), _LATEST)


def split_trailers(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Split a message from the last paragraph, if that is all `key: value`."""
    body, _, last = text.strip("\n").rpartition("\n\n")
    found = [_TRAILER.fullmatch(line) for line in last.splitlines()]
    if body and found and all(found):
        return body, [(match[1], match[2]) for match in found if match]
    return text.strip("\n"), []
