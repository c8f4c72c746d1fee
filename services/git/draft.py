"""A commit to be made: what a caller says of it, and how git stores it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Final

from servicekit.errors import InvalidArgument
from services.git import history
from services.git.provenance import Account

_TRAILER: Final = re.compile(r"[A-Za-z0-9-]+: ")
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
class Made:
    """A commit, and how git stores it."""

    commit: history.Commit
    data: bytes


def write(draft: Draft, tree: str, head: str, server: Person, moment: int) -> Made:
    """The commit of `tree` on `head`, if that is not empty, made at `moment` (Unix seconds)."""
    author, committer = (
        history.Signature(_clean(one.name), _clean(one.email), moment)
        for one in (draft.author or server, server)
    )
    text = message_text(draft)
    lines = [
        f"tree {tree}",
        *([f"parent {head}"] if head else []),
        f"author {author.name} <{author.email}> {moment} +0000",
        f"committer {committer.name} <{committer.email}> {moment} +0000",
    ]
    data = "\n".join([*lines, "", text]).encode()
    header = b"commit %d\0" % len(data)
    message, trailers = history.split_trailers(text)
    commit = history.Commit(
        id=sha1(header + data, usedforsecurity=False).hexdigest(),
        parents=[head] if head else [],
        tree=tree,
        author=author,
        committer=committer,
        message=message,
        trailers=trailers,
    )
    return Made(commit, data)


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
