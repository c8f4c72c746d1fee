"""Takes down worktrees, also on a disk on which nothing can be written.

Files come first: refs that were packed are written into their room. Where that is not enough the
worktree is removed all the same, and its refs go with the next one, or at the next start.
"""

import asyncio

from services.git import files, provenance
from services.git.cell import Cells
from services.git.checkouts import Checkouts
from services.git.errors import is_of_room
from services.git.record import RECORD, REMOVING, Record, layers_of
from services.git.records import Records
from services.git.repositories import Repositories
from services.git.repository import Repository, head_ref
from services.git.stacks import Stacks


class Removal:
    """Of all worktrees of this node."""

    def __init__(
        self,
        records: Records,
        repositories: Repositories,
        checkouts: Checkouts,
        stacks: Stacks,
        cells: Cells,
    ) -> None:
        self._records = records
        self._repositories = repositories
        self._checkouts = checkouts
        self._stacks = stacks
        self._cells = cells
        self._left: list[Record] = []
        """Removed ones, of which refs are still there."""

    async def run(self, record: Record) -> None:
        """Remove it, and its repository if nobody else can use it. Call it `locked`."""
        repository = self._repository_of(record)
        directory = self._records.directory(record.uid)
        await self._cells.drop(directory)
        # Not locked: a fetch for another worktree may take its time.
        with repository.writing():
            await files.remove_but(directory, RECORD, REMOVING)
            dropped = await self._drop_branch(repository, record)
        self._records.drop(record.uid)
        if self._is_useless(repository, record.tenant, record.key, record.repository):
            async with self._repositories.locked(repository):
                await self.tidy(repository, record.tenant, record.key, record.repository)
        # Late, as whoever goes on after a crash knows all the rest by what is in it; layers
        # that no record names are swept at the start.
        if dropped:
            await files.remove_tree(directory)
        else:
            self._left.append(record)
        await self._stacks.release(layers_of(record))
        if dropped:
            with repository.writing():
                await self._drop_left(repository)

    def _is_useless(self, repository: Repository, tenant: str, key: str, origin: str) -> bool:
        """Nobody has a worktree of it; and it was never fetched, or has no origin."""
        alone = self._records.users_of(tenant, key) == 0
        return alone and (not origin or not self._repositories.is_filled(repository))

    async def tidy(self, repository: Repository, tenant: str, key: str, origin: str) -> None:
        """Remove a repository that nobody can use any more. Call it locked."""
        if self._is_useless(repository, tenant, key, origin):
            await repository.undisturbed()
            await self._checkouts.forget(repository)
            await self._cells.drop(repository.path)
            await asyncio.to_thread(self._repositories.remove, repository)

    async def _drop_branch(self, repository: Repository, record: Record) -> bool:
        """Whether its refs are gone; they are not where there is no room to do it."""
        names = [record.uid, *(f"{record.uid}/snapshots/{one.id}" for one in record.snapshots)]
        if not (repository.path / "HEAD").exists():
            return True
        try:
            await drop_refs(repository, *names)
            if await provenance.is_kept(repository, record.uid):
                await repository.update_refs([f"delete {provenance.notes_ref(record.uid)}"])
        except Exception as error:
            if not is_of_room(error):
                raise
            return False
        return not any(repository.head(name) for name in names)

    async def _drop_left(self, repository: Repository) -> None:
        """The same of those whose refs had to be left in this repository."""
        left, self._left = self._left, []
        for record in left:
            mine = self._repository_of(record) is repository and not self._records.find(record.uid)
            if mine and await self._drop_branch(repository, record):
                await files.remove_tree(self._records.directory(record.uid))
            else:
                self._left.append(record)

    def _repository_of(self, record: Record) -> Repository:
        return self._repositories.find(record.tenant, record.key)


async def drop_refs(repository: Repository, *names: str) -> None:
    """Remove the branches of worktrees and snapshots, if they are there. Call it `writing`."""
    found = [head_ref(name) for name in names if _is_there(repository, name)]
    if len(names) == len(found) == 1 and await repository.move(
        found[0], repository.head(names[0]), ""
    ):
        return
    if found:
        await repository.update_refs([f"delete {ref}" for ref in found])


def _is_there(repository: Repository, name: str) -> bool:
    """Whether a branch is there, as git has it. One that is damaged is removed here."""
    try:
        return bool(repository.head(name))
    except ValueError:
        (repository.path / head_ref(name)).unlink(missing_ok=True)
        return bool(repository.head(name))
