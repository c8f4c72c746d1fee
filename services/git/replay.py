"""Makes commits again, one by one, on another commit: a rebase without a working tree.

Git before 2.40 cannot be told the base of a merge. So for each commit there is one made up
for the purpose: it has the tree reached so far, and the same parent as the commit to be
repeated, which is therefore what the two have in common.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha1
from typing import Final

from services.git import conflicts
from services.git.command import Command, check_id, git, together
from services.git.conflicts import Merged
from services.git.errors import GitFailed, NotLinear, failed
from services.git.mergetree import PLACE, TIMEOUT, command
from services.git.repository import Repository

LIMIT: Final = 500
"""Commits that are repeated at most."""
_BYTES: Final = 64 << 20
_FILE: Final = "/run/cell/commit-"
_KEPT: Final = (b"author ", b"encoding ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Where it came to; with `conflicts`, at which commit it stopped, and why."""

    tip: str
    tree: str
    stopped_at: str = ""
    conflicts: Merged | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Commit:
    id: str
    tree: str
    parents: Sequence[str]
    kept: Sequence[bytes]
    """Lines of its header that a repetition has, too: author and encoding."""
    message: bytes


async def replay(
    repository: Repository,
    target: str,
    source: str,
    committer: bytes,
    names: Mapping[str, str],
) -> Replayed:
    """Repeat on `target` what `source` has and it has not. Call it while `repository.writing()`.

    `committer` is the value of that header line. A commit that changes nothing any more, or
    whose change the target has already, is left out; those that lie on it stay what they are.
    Raises `NotLinear`.
    """
    wanted = await _wanted(repository, target, source)
    known = await _read(repository, [target, *wanted])
    tip, tree = target, known[target].tree
    unwritten: list[bytes] = []
    for identity in wanted:
        commit = known[identity]
        if len(commit.parents) != 1:
            raise NotLinear(
                "a commit of the source is a merge: it cannot be repeated",
                commit=identity,
                remedy="Merge or squash instead, or rebase inside the workspace first.",
            )
        if commit.parents[0] == tip:
            tip, tree = identity, commit.tree
            continue
        made_up = _raw(tree, commit.parents[0], [b"author " + committer], committer, b"")
        step = await _step(repository, [*unwritten, made_up], commit, names)
        unwritten = []
        if step.total:
            return Replayed(tip=tip, tree=step.tree, stopped_at=identity, conflicts=step)
        if step.tree == tree and known[commit.parents[0]].tree != commit.tree:
            continue
        tree = step.tree
        unwritten = [_raw(tree, tip, commit.kept, committer, commit.message)]
        tip = _id(unwritten[0])
    if unwritten:
        await _write(repository, unwritten)
    return Replayed(tip=tip, tree=tree)


async def _wanted(repository: Repository, target: str, source: str) -> list[str]:
    """Oldest first. Raises `NotLinear`."""
    options = ["--reverse", "--topo-order", "--cherry-pick", "--right-only"]
    listing = git(PLACE, "rev-list", options, values=[f"{target}...{source}"])
    output = await repository.cells.check(repository.cell(), listing, timeout=TIMEOUT)
    found = output.decode("ascii").split()
    if len(found) > LIMIT:
        raise NotLinear(
            f"the source has more than {LIMIT} commits to be repeated", commit=found[LIMIT]
        )
    return found


async def _read(repository: Repository, wanted: Sequence[str]) -> Mapping[str, _Commit]:
    """Commits as they are stored, and their parents, by their ids."""
    reading = git(PLACE, "cat-file", ["--batch"])
    stdin = "".join(f"{identity}\n{identity}^\n" for identity in wanted).encode()
    output = await repository.cells.check(repository.cell(), reading, stdin, limit=_BYTES)
    return {commit.id: commit for commit in await asyncio.to_thread(list, _commits(output))}


def _commits(output: bytes) -> Iterator[_Commit]:
    position = 0
    while position < len(output):
        end = output.index(b"\n", position)
        if output[position:end].endswith(b" missing"):  # The parent of a first commit.
            position = end + 1
            continue
        identity, _, size = output[position:end].decode("ascii").split(" ")
        raw = output[end + 1 : end + 1 + int(size)]
        position = end + 2 + int(size)
        header, _, message = raw.partition(b"\n\n")
        lines = header.split(b"\n")
        yield _Commit(
            id=identity,
            tree=check_id(lines[0].removeprefix(b"tree ")),
            parents=[check_id(line[7:]) for line in lines if line.startswith(b"parent ")],
            kept=[line for line in lines if line.startswith(_KEPT)],
            message=message,
        )


async def _step(
    repository: Repository,
    made: Sequence[bytes],
    commit: _Commit,
    names: Mapping[str, str],
) -> Merged:
    """Write the commits `made`, and merge `commit` into the last one of them."""
    ours = _id(made[-1])
    both = together(_writing(made), command(ours, commit.id))
    cell = replace(repository.cell(writable=True), files=_files(made))
    result = await repository.cells.run(cell, both, timeout=TIMEOUT, limit=_BYTES)
    if result.code not in (0, 1):
        raise _unwritable(result.code, result.errors, commit.id)
    # An id and a line's end for each.
    output = result.output[41 * len(made) :]
    called = {**names, ours: next(iter(names.values()), ours)}
    return await asyncio.to_thread(conflicts.read, output, called, clean=result.code == 0)


async def _write(repository: Repository, made: Sequence[bytes]) -> None:
    cell = replace(repository.cell(writable=True), files=_files(made))
    result = await repository.cells.run(cell, _writing(made))
    if result.code != 0:
        raise _unwritable(result.code, result.errors, _id(made[-1]))


def _writing(made: Sequence[bytes]) -> Command:
    return git(PLACE, "hash-object", values=list(_files(made)))


def _files(made: Sequence[bytes]) -> Mapping[str, bytes]:
    return {f"{_FILE}{number}": raw for number, raw in enumerate(made)}


def _raw(tree: str, parent: str, kept: Sequence[bytes], committer: bytes, message: bytes) -> bytes:
    lines = [f"tree {tree}".encode(), f"parent {parent}".encode(), b"committer " + committer]
    # Git wants the author before the committer, and an encoding after both.
    lines[2:2] = [line for line in kept if line.startswith(b"author ")]
    lines += [line for line in kept if line.startswith(b"encoding ")]
    return b"\n".join(lines) + b"\n\n" + message


def _id(raw: bytes) -> str:
    """The id that git gives to a commit."""
    return sha1(b"commit %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest()


def _unwritable(code: int, errors: str, commit: str) -> Exception:
    """Git may refuse to write a commit that another program once wrote."""
    error = failed("hash-object", code, errors)
    if not isinstance(error, GitFailed) or "merge-tree" in errors:
        return error
    return NotLinear("a commit of the source cannot be written again", commit=commit)
