"""Repositories of this machine: each is used as its owner, in a cell without network."""

import os
import stat
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

from servicekit.errors import ServiceError
from services.git.cell import Cell, Cells, Identity, owner_of
from services.git.command import Command, Where, git
from services.git.errors import RepositoryNotFound
from services.git.process import close_all
from services.git.remote import Remote, Rules

_STATUS_TIMEOUT: Final = 20


class Local:
    def __init__(self, cells: Cells, rules: Rules, state: Path) -> None:
        self._cells = cells
        self._rules = rules
        self._state = state

    def listing(self, remote: Remote) -> tuple[Cell, Command]:
        """A command that prints what the repository offers. Raises `RepositoryNotFound`."""
        command = git(Where(git_dir=""), "upload-pack", ["--advertise-refs"], values=[remote.path])
        return self._cell(remote), command

    async def serve(
        self, stack: AsyncExitStack, remote: Remote, *, writing: bool
    ) -> tuple[tuple[int, int], list[int]]:
        """Serve it while `stack` is open; the two descriptors are the other side's.

        Raises `RepositoryNotFound`.
        """
        cell = self._cell(remote, writing=writing)
        command = git(
            Where(git_dir=""),
            "receive-pack" if writing else "upload-pack",
            values=[remote.path],
            # Whoever may read the repository may name any commit of it.
            config=[("uploadpack.allowAnySHA1InWant", "true")],
        )
        pipes: list[int] = []
        stack.callback(close_all, pipes)
        their_in, our_out = os.pipe()
        pipes += [their_in, our_out]
        our_in, their_out = os.pipe()
        pipes += [our_in, their_out]
        await stack.enter_async_context(
            self._cells.started(cell, command, stdin=their_in, stdout=their_out)
        )
        return (our_in, our_out), pipes

    async def is_dirty(self, remote: Remote) -> bool:
        """Whether it has a worktree with uncommitted work; False where that cannot be told."""
        path = Path(remote.path)
        directory = git_directory(path)
        if directory is None or directory == path:
            return False
        owner = owner_of(directory) if self._cells.privileged else self._cells.keeper
        cell = Cell(identity=owner, roots=self._rules.local_roots, cwd=remote.path)
        where = Where(git_dir="", variables={"GIT_OPTIONAL_LOCKS": "0"})
        with suppress(ServiceError):
            result = await self._cells.run(cell, git(where, "status"), timeout=_STATUS_TIMEOUT)
            return result.code == 0 and bool(result.output)
        return False

    def _cell(self, remote: Remote, *, writing: bool = False) -> Cell:
        directory = git_directory(Path(remote.path))
        if directory is None or not any(
            directory.is_relative_to(root) for root in self._rules.local_roots
        ):
            raise RepositoryNotFound("no repository is there", repository=remote.url)
        owner = owner_of(directory)
        return Cell(
            identity=owner if self._cells.privileged else self._cells.keeper,
            roots=self._rules.local_roots,
            writable_roots=[directory] if writing else (),
            hidden=self._hidden(owner),
        )

    def _hidden(self, owner: Identity) -> Sequence[Path]:
        # Others cannot enter the state directory in the first place.
        inside = any(self._state.is_relative_to(root) for root in self._rules.local_roots)
        return [self._state] if inside and owner.uid == os.geteuid() else []


def git_directory(path: Path) -> Path | None:
    """The directory with the objects of the repository at `path`; None if there is none.

    Follows the `.git` file of a linked worktree. Runs nothing.
    """
    if (path / "objects").is_dir() and (path / "HEAD").is_file():
        return path
    git_dir = path / ".git"
    if git_dir.is_file():
        text = _short_text(git_dir).removeprefix("gitdir:").strip()
        git_dir = path / text
        if common := _short_text(git_dir / "commondir").strip():
            git_dir = git_dir / common
    git_dir = git_dir.resolve()
    return git_dir if (git_dir / "objects").is_dir() else None


def _short_text(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.fsdecode(os.read(descriptor, 4096))
    finally:
        os.close(descriptor)
