"""Where the parts of worktrees are, and how they are laid out."""

from pathlib import Path

from servicekit.aside import aside
from services.git import files, filling, inside, partial
from services.git.cell import Cells
from services.git.checkouts import Checkouts
from services.git.errors import WorktreeNotFound
from services.git.record import Mode, Record
from services.git.records import Records
from services.git.repositories import Repositories
from services.git.repository import Repository
from services.git.sandbox import Identity
from services.git.scan import Frozen
from services.git.stacks import EMPTY
from services.git.workspace import Paths, Workspace


class Layout:
    """Of the worktrees of this node."""

    def __init__(
        self,
        records: Records,
        repositories: Repositories,
        checkouts: Checkouts,
        layers: Path,
        cells: Cells,
    ) -> None:
        self._records = records
        self._repositories = repositories
        self._checkouts = checkouts
        self.layers = layers
        self._cells = cells
        self._frozen = Frozen()

    def load(self) -> None:
        """Have what all worktrees need."""
        self.layers.mkdir(exist_ok=True, mode=0o711)
        self._empty(self._cells.sandbox)

    def _empty(self, owner: Identity) -> Path:
        """What stands in for the checkout of a repository without a commit; made if absent."""
        path = self.layers / (EMPTY if owner == self._cells.sandbox else f"{EMPTY}-{owner.uid}")
        if not filling.is_laid_out(path):  # Nobody writes below a worktree that may be mounted.
            path.mkdir(exist_ok=True)
            filling.lay_out(path, owner)
        return path

    async def lay_out(self, record: Record, repository: Repository, commit: str) -> None:
        """Make the directories of a worktree, without what was left of an earlier attempt."""
        directory = self._records.directory(record.uid)
        for left in [path for path in directory.iterdir() if path.is_dir()]:
            await files.remove_tree(left)
        sandbox = repository.sandbox
        plain = record.mode is Mode.PLAIN
        tree, mode = directory / ("tree" if plain else "upper"), self._cells.mode_of(sandbox)
        files.make_directory(tree, sandbox, mode)
        if plain:
            await self._fill(repository, commit, tree)
            tree.chmod(mode)
        else:
            files.make_directory(directory / "work", sandbox)
            if commit:
                await self._checkouts.get(repository, commit)
        paths = self.paths(record)
        paths.outside.mkdir()
        paths.lock.touch(mode=0o600)
        refs = list((await repository.refs("refs/remotes/origin/", "refs/tags/")).items())
        shallow = partial.shallow(repository.path)
        # Of a hundred thousand refs it takes most of a second.
        await aside(inside.make, paths.tree, sandbox, record, commit, refs, shallow)

    async def _fill(self, repository: Repository, commit: str, tree: Path) -> None:
        if not commit:
            filling.lay_out(tree, repository.sandbox)
            return
        moment = await filling.date(self._cells, repository, commit)
        await filling.fill(self._cells, repository, commit, tree, moment)

    def paths(self, record: Record) -> Paths:
        """Raises `WorktreeNotFound` where the checkout is gone."""
        lowers: tuple[Path, ...] = ()
        if record.mode is not Mode.PLAIN and record.checkout:
            found = self._checkouts.find(self._repository_of(record), record.checkout)
            if found is None:
                raise WorktreeNotFound("the worktree's checkout is gone", uid=record.uid)
            lowers = found.layers
        elif record.mode is not Mode.PLAIN:
            lowers = (self._empty(self._repository_of(record).sandbox),)
        return Paths(
            directory=self._records.directory(record.uid),
            layers=tuple(self.layers / name for name in record.layers),
            lowers=lowers,
            plain=record.mode is Mode.PLAIN,
        )

    async def workspace(self, record: Record) -> Workspace:
        """What looks at a worktree. Raises `WorktreeNotFound`."""
        repository = self._repository_of(record)
        if record.checkout and record.mode is not Mode.PLAIN:
            await self._checkouts.get(repository, record.checkout)
        return Workspace(record, self.paths(record), repository, self._cells, self._frozen)

    def _repository_of(self, record: Record) -> Repository:
        return self._repositories.find(record.tenant, record.key)
