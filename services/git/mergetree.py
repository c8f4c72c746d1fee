"""Merges commits without a working tree, in a cell that sees nothing but the repository.

No attributes are followed, so neither a workspace nor a fetched repository names the
program that merges its files: where git would read them from a tree, it gets an empty one.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.git import conflicts
from services.git.cell import Cells
from services.git.command import Command, Where, check_id, git
from services.git.conflicts import Merged
from services.git.errors import GitTooOld, UnrelatedHistories, failed
from services.git.repository import Repository
from services.git.transport import STORE

TIMEOUT: Final = 300
_EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
PLACE: Final = Where(git_dir=STORE, variables={"GIT_ATTR_SOURCE": _EMPTY_TREE})
"""The repository in its cell, for what merges."""
_MESSAGE: Final = "/run/cell/message"
NEEDED: Final = (2, 38)
"""The git that merges without a working tree."""
_LIMIT: Final = 256 << 20
_VERSION: Final = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """How two commits are related: a commit both come from, and how many each has alone."""

    base: str
    ahead: int
    behind: int


class Merging:
    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._version = ""

    async def require(self, needed: tuple[int, int] = NEEDED) -> None:
        """Raises `GitTooOld` where this host's git cannot merge without a working tree."""
        if not self._version:
            self._version = await self._cells.probe()
        check_version(self._version, needed)

    async def relate(self, repository: Repository, target: str, source: str) -> Relation:
        """How `source` is related to `target`. Raises `UnrelatedHistories`."""
        counting = git(
            PLACE, "rev-list", ["--left-right", "--count"], values=[f"{target}...{source}"]
        )
        finding = git(PLACE, "merge-base", values=[target, source])
        cell = repository.cell()
        counted, found = await asyncio.gather(
            self._cells.check(cell, counting, timeout=TIMEOUT),
            self._cells.run(cell, finding, timeout=TIMEOUT),
        )
        if found.code == 1 and not found.output:
            raise UnrelatedHistories(
                "source and target have no commit in common", source=source, target=target
            )
        if found.code != 0:
            raise failed("merge-base", found.code, found.errors)
        behind, ahead = (int(number) for number in counted.split())
        return Relation(base=check_id(found.output), ahead=ahead, behind=behind)

    async def merge(
        self, repository: Repository, ours: str, theirs: str, names: Mapping[str, str]
    ) -> Merged:
        """Merge `theirs` into `ours`, both commits. Call it while `repository.writing()`.

        The tree is in the repository, though no ref keeps it. `names` says what to call
        commits in messages.
        """
        cell = repository.cell(writable=True)
        result = await self._cells.run(cell, command(ours, theirs), timeout=TIMEOUT, limit=_LIMIT)
        if result.code not in (0, 1):
            raise failed("merge-tree", result.code, result.errors)
        return await asyncio.to_thread(conflicts.read, result.output, names, clean=result.code == 0)

    async def count(self, repository: Repository, commit: str) -> int:
        """How many commits there are from `commit` back."""
        counting = git(PLACE, "rev-list", ["--count"], values=[commit])
        return int(await self._cells.check(repository.cell(), counting, timeout=TIMEOUT))

    async def contains(self, repository: Repository, head: str, commit: str) -> bool:
        """Whether `commit` is here, and `head` comes from it or is it."""
        asking = git(PLACE, "merge-base", ["--is-ancestor"], values=[commit, head])
        result = await self._cells.run(repository.cell(), asking, timeout=TIMEOUT)
        return result.code == 0

    async def changed_files(self, repository: Repository, old: str, new: str) -> int:
        """How many files differ between two trees; one that was renamed counts once."""
        differing = git(PLACE, "diff", ["--name-only", "-z", "-M"], values=[old, new])
        output = await self._cells.check(
            repository.cell(), differing, timeout=TIMEOUT, limit=_LIMIT
        )
        return output.count(b"\0")

    async def commit(
        self,
        repository: Repository,
        tree: str,
        parents: Sequence[str],
        message: str,
        variables: Mapping[str, str],
    ) -> str:
        """Make a commit that no ref names yet. Call it while `repository.writing()`."""
        options = [*(f"-p{parent}" for parent in parents), f"-F{_MESSAGE}"]
        making = git(
            Where(git_dir=STORE, variables=variables), "commit-tree", options, values=[tree]
        )
        cell = replace(repository.cell(writable=True), files={_MESSAGE: message.encode()})
        return check_id(await self._cells.check(cell, making))


def command(ours: str, theirs: str) -> Command:
    """`git merge-tree` of two commits."""
    return git(PLACE, "merge-tree", values=[ours, theirs])


def many(where: Where = PLACE, config: Sequence[tuple[str, str]] = ()) -> Command:
    """`git merge-tree` of the two commits on each line of its stdin, also unrelated ones."""
    options = ["--stdin", "--allow-unrelated-histories"]
    return git(where, "merge-tree", options, config=config)


def check_version(found: str, needed_version: tuple[int, int] = NEEDED) -> None:
    """Raises `GitTooOld` where a version of git is older than needed, or cannot be told."""
    version = _VERSION.match(found)
    if version is None or (int(version[1]), int(version[2])) < needed_version:
        needed = ".".join(map(str, needed_version))
        raise GitTooOld(
            f"merging needs git {needed}, this host has {found}",
            capability="merge",
            found=found,
            needed=needed,
            remedy=f"Have the operator install git {needed} or later where the git service runs;"
            " until then, merge inside the workspace and push.",
        )
