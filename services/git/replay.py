"""Makes commits again, one by one, on another commit: a rebase without a working tree.

Git before 2.40 cannot be told the base of a merge. So for each commit there is one made up
for the purpose: it has the tree reached so far, and the same parent as the commit to be
repeated, which is therefore what the two have in common.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.git import conflicts, raw
from services.git.command import check_id, git, together
from services.git.conflicts import Merged
from services.git.errors import GitFailed, NotLinear, failed
from services.git.mergetree import PLACE, TIMEOUT, command
from services.git.repository import Repository

LIMIT: Final = 500
"""Commits that are repeated at most."""
_BYTES: Final = 64 << 20


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
    author: bytes
    encoding: bytes
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
        made_up = raw.commit(tree, commit.parents, committer, committer)
        step = await _step(repository, [*unwritten, made_up], commit, names)
        unwritten = []
        if step.total:
            return Replayed(tip=tip, tree=step.tree, stopped_at=identity, conflicts=step)
        if step.tree == tree and known[commit.parents[0]].tree != commit.tree:
            continue
        tree = step.tree
        again = raw.commit(
            tree, [tip], commit.author, committer, commit.message, encoding=commit.encoding
        )
        unwritten = [again]
        tip = raw.id_of(again)
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
        stored = output[end + 1 : end + 1 + int(size)]
        position = end + 2 + int(size)
        header, _, message = stored.partition(b"\n\n")
        lines = header.split(b"\n")
        yield _Commit(
            id=identity,
            tree=check_id(lines[0].removeprefix(b"tree ")),
            parents=[check_id(line[7:]) for line in lines if line.startswith(b"parent ")],
            author=_value(lines, b"author "),
            encoding=_value(lines, b"encoding "),
            message=message,
        )


def _value(lines: Sequence[bytes], key: bytes) -> bytes:
    return next((line.removeprefix(key) for line in lines if line.startswith(key)), b"")


async def _step(
    repository: Repository,
    made: Sequence[bytes],
    commit: _Commit,
    names: Mapping[str, str],
) -> Merged:
    """Write the commits `made`, and merge `commit` into the last one of them."""
    ours = raw.id_of(made[-1])
    both = together(raw.writing(made), command(ours, commit.id))
    cell = replace(repository.cell(writable=True), files=raw.files(made))
    result = await repository.cells.run(cell, both, timeout=TIMEOUT, limit=_BYTES)
    if result.code not in (0, 1):
        raise _unwritable(result.code, result.errors, commit.id)
    # An id and a line's end for each.
    output = result.output[41 * len(made) :]
    called = {**names, ours: next(iter(names.values()), ours)}
    return await asyncio.to_thread(conflicts.read, output, called, clean=result.code == 0)


async def _write(repository: Repository, made: Sequence[bytes]) -> None:
    cell = replace(repository.cell(writable=True), files=raw.files(made))
    result = await repository.cells.run(cell, raw.writing(made))
    if result.code != 0:
        raise _unwritable(result.code, result.errors, raw.id_of(made[-1]))


def _unwritable(code: int, errors: str, commit: str) -> Exception:
    """Git may refuse to write a commit that another program once wrote."""
    error = failed("hash-object", code, errors)
    if not isinstance(error, GitFailed) or "merge-tree" in errors:
        return error
    return NotLinear("a commit of the source cannot be written again", commit=commit)
