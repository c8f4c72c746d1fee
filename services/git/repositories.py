"""The repositories of this node: made, found and removed."""

import asyncio
import re
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from servicekit.aside import aside
from services.git import files, partial
from services.git.cell import Cells
from services.git.origins import origin_file
from services.git.partial import Partial
from services.git.repository import Repository

_TENANT: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RECENT: Final = 64
_CONFIG: Final = (
    b"[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tsharedRepository = 0644\n"
)


class Repositories:
    """Makes, finds and removes them. One process owns the directory."""

    def __init__(self, root: Path, cells: Cells) -> None:
        self._root = root
        self._cells = cells
        self._known: WeakValueDictionary[Path, Repository] = WeakValueDictionary()
        self._recent: OrderedDict[Path, Repository] = OrderedDict()
        """Kept for what they know."""

    def find(self, tenant: str, key: str) -> Repository:
        """The repository of a tenant with `key`; it may not exist yet."""
        path = self._root / folder(tenant) / f"{key}.git"
        found = self._known.setdefault(path, Repository(path, self._cells))
        self._recent[path] = found
        self._recent.move_to_end(path)
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return found

    def load(self) -> None:
        """Remove what a former process did not finish writing beside and in them."""
        for tenant in self._root.glob("*"):
            for directory in (tenant, *tenant.glob("*.git")):
                files.sweep(directory)

    async def all(self) -> list[Repository]:
        """Those there are."""
        paths = await asyncio.to_thread(lambda: sorted(self._root.glob("*/*.git")))
        # Each is one object, by which its users know of each other: so no thread makes any.
        return [self._known.setdefault(path, Repository(path, self._cells)) for path in paths]

    def relative(self, repository: Repository) -> str:
        """Its path below the directory of all."""
        return str(repository.path.relative_to(self._root))

    @asynccontextmanager
    async def locked(self, repository: Repository) -> AsyncIterator[None]:
        """Keep others from changing it. Commands of a service that died are dead, too.

        Upkeep that gives way is broken off.
        """
        if repository.gives_way:
            await repository.undisturbed()
        async with repository.lock:
            with repository.writing():
                yield

    async def make(self, repository: Repository, part: Partial | None = None) -> bool:
        """Make an empty one if there is none; whether there was none. Call it locked.

        It is to hold a `part` of its origin only, or all of it.
        """
        if (repository.path / "HEAD").exists():
            return False
        await aside(self._make, repository, part)
        return True

    def _make(self, repository: Repository, part: Partial | None) -> None:
        keeper = self._cells.keeper
        self._root.mkdir(exist_ok=True, mode=0o711)
        repository.path.parent.mkdir(exist_ok=True, mode=0o711)
        for name in ("", "objects", "objects/pack", "objects/info", "refs", "refs/heads"):
            files.make_directory(repository.path / name, keeper)
        config = _CONFIG
        if part is not None:
            config += part.config
            partial.keep(repository.path, part)
        files.write(repository.path / "config", config, owner=keeper)
        files.write(repository.path / "HEAD", b"ref: refs/heads/main\n", owner=keeper)

    def is_filled(self, repository: Repository) -> bool:
        """Whether it was fetched from its origin at least once."""
        return origin_file(repository.path).exists()

    def remove(self, repository: Repository) -> None:
        """Remove it whole. Call it locked."""
        repository.forget()
        shutil.rmtree(repository.path, ignore_errors=True)
        origin_file(repository.path).unlink(missing_ok=True)
        with suppress(OSError):
            repository.path.parent.rmdir()


def folder(tenant: str) -> str:
    """A tenant's directory. What is no plain name gets one that none can have."""
    if _TENANT.fullmatch(tenant):
        return tenant
    return f"_{sha256(tenant.encode()).hexdigest()[:32]}"
