"""Repositories of this machine: each is used as its owner, in a cell without network.

A cell sees the one repository and no other file of its owner's, who may be root.
Only what serves the repository to others reads its configuration, and none of
the programs that this may name are run.
"""

import os
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from servicekit.errors import ServiceError
from services.git import local_repository
from services.git.cell import Bind, Cell, Cells, Identity, owner_of
from services.git.command import Command, Where, git
from services.git.errors import OutputTooLarge, RepositoryNotFound
from services.git.local_repository import LocalRepository
from services.git.process import close_all
from services.git.remote import Remote, Rules

MEMORY: Final = 4 << 30
"""Bytes for commands that may have to count all objects of a large repository."""
_STATUS_TIMEOUT: Final = 10
_HEAD: Final = re.compile(r"ref: refs/[!-~]+|[0-9a-f]{40}")
_TREE: Final = "/run/cell/tree"
_GIT: Final = "/run/cell/git"
_CONFIG: Final = b"[core]\n\trepositoryformatversion = 0\n\tbare = false\n"


class Local:
    def __init__(self, cells: Cells, rules: Rules, state: Path) -> None:
        self._cells = cells
        self._rules = rules
        self._state = state

    def listing(self, remote: Remote) -> tuple[Cell, Command]:
        """A command that prints what the repository offers. Raises `RepositoryNotFound`."""
        found = self._find(remote)
        options = ["--advertise-refs"]
        command = git(Where(git_dir=""), "upload-pack", options, values=[str(found.own)])
        return self._cell(found), command

    async def serve(
        self, stack: AsyncExitStack, remote: Remote, *, writing: bool
    ) -> tuple[tuple[int, int], list[int]]:
        """Serve it while `stack` is open; the two descriptors are the other side's.

        Raises `RepositoryNotFound`.
        """
        found = self._find(remote)
        command = git(
            Where(git_dir=""),
            "receive-pack" if writing else "upload-pack",
            values=[str(found.own)],
            # Whoever may read the repository may name any commit of it.
            config=[
                ("uploadpack.allowAnySHA1InWant", "true"),
                ("uploadpack.allowFilter", "true"),
            ],
        )
        pipes: list[int] = []
        stack.callback(close_all, pipes)
        their_in, our_out = os.pipe()
        pipes += [their_in, our_out]
        our_in, their_out = os.pipe()
        pipes += [our_in, their_out]
        cell = self._cell(found, writing=writing)
        await stack.enter_async_context(
            self._cells.started(cell, command, stdin=their_in, stdout=their_out)
        )
        return (our_in, our_out), pipes

    async def is_dirty(self, remote: Remote) -> bool | None:
        """Whether it has a worktree with uncommitted work; None where that cannot be told.

        Its files and its index are compared under a configuration of ours: its own
        could name a filter, which git would run as the owner.
        """
        try:
            found = self._find(remote)
        except RepositoryNotFound:
            return False
        head = local_repository.short_text(found.own / "HEAD").strip()
        if found.tree is None or _HEAD.fullmatch(head) is None:
            return False if found.tree is None else None
        parts = {
            _TREE: found.tree,
            f"{_GIT}/objects": found.common / "objects",
            f"{_GIT}/refs": found.common / "refs",
            f"{_GIT}/packed-refs": found.common / "packed-refs",
            f"{_GIT}/index": found.own / "index",
            f"{_GIT}/info/exclude": found.common / "info" / "exclude",
        }
        cell = Cell(
            identity=self._owner(found),
            lent=[
                *(Bind(source=path, target=seen) for seen, path in parts.items() if _plain(path)),
                *(Bind(source=path, target=str(path)) for path in self._alternates(found)),
            ],
            files={f"{_GIT}/HEAD": f"{head}\n".encode(), f"{_GIT}/config": _CONFIG},
            cwd=_TREE,
        )
        where = Where(git_dir=_GIT, work_tree=_TREE, variables={"GIT_OPTIONAL_LOCKS": "0"})
        try:
            result = await self._cells.run(cell, git(where, "status"), timeout=_STATUS_TIMEOUT)
        except OutputTooLarge:
            return True
        except ServiceError:
            return None
        return bool(result.output) if result.code == 0 else None

    def _find(self, remote: Remote) -> LocalRepository:
        found = local_repository.find(Path(remote.path))
        if found is None or not self._is_allowed(found.common):
            raise RepositoryNotFound("no repository is there", repository=remote.url)
        return found

    def _is_allowed(self, directory: Path) -> bool:
        # One that has our state inside would show it.
        return self._rules.is_open(directory) and not self._state.is_relative_to(directory)

    def _alternates(self, found: LocalRepository) -> list[Path]:
        return list(local_repository.alternates(found, self._is_allowed))

    def _cell(self, found: LocalRepository, *, writing: bool = False) -> Cell:
        return Cell(
            identity=self._owner(found),
            memory=MEMORY,
            lent=[
                Bind(source=path, target=str(path), writable=writing and path == found.common)
                for path in [found.common, *self._alternates(found)]
            ],
        )

    def _owner(self, found: LocalRepository) -> Identity:
        return owner_of(found.common) if self._cells.privileged else self._cells.keeper


def _plain(path: Path) -> bool:
    """Whether it is a file or a directory, and no link to one elsewhere."""
    return not path.is_symlink() and (path.is_dir() or path.is_file())
