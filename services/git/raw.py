"""Commits as git stores them, made by us: their ids are known before git has written them."""

from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Final

from services.git.command import Command, Where, git
from services.git.mergetree import PLACE

_FILE: Final = "/run/cell/commit-"


def commit(
    tree: str,
    parents: Sequence[str],
    author: bytes,
    committer: bytes,
    message: bytes = b"",
    *,
    encoding: bytes = b"",
) -> bytes:
    """What git stores; `author` and `committer` are the values of those lines."""
    lines = [b"tree " + tree.encode(), *(b"parent " + parent.encode() for parent in parents)]
    lines += [b"author " + author, b"committer " + committer]
    if encoding:
        lines.append(b"encoding " + encoding)
    return b"\n".join(lines) + b"\n\n" + message


def id_of(stored: bytes) -> str:
    """The id that git gives it."""
    return sha1(b"commit %d\0" % len(stored) + stored, usedforsecurity=False).hexdigest()


def files(commits: Sequence[bytes]) -> Mapping[str, bytes]:
    """Files of a cell in which `writing` is run."""
    return {f"{_FILE}{number}": stored for number, stored in enumerate(commits)}


def writing(
    commits: Sequence[bytes], where: Where = PLACE, config: Sequence[tuple[str, str]] = ()
) -> Command:
    """Puts them into the repository, and prints their ids, each on a line."""
    return git(where, "hash-object", values=list(files(commits)), config=config)
