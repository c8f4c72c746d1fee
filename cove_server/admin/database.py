"""The registry of a state directory, whichever database it has: copied, looked at, mended, filled.

A copy is always a file of SQLite: both stores have the same tables.
"""

import asyncio
import importlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from cove_server.admin.errors import Refused
from cove_server.places import Places
from services.registry import copying, mending
from services.registry.app import open_store
from services.registry.config import Config
from services.registry.errors import StartError
from services.registry.mending import Statement
from services.registry.store import Store

_POSTGRES: Final = "services.registry.postgres.copying"
_EMPTY: Final = "Name an empty database in COVE_REGISTRY__DATABASE; this one stays as it is."


class Registry(Protocol):
    """What is asked of either. None of it may be called while a loop runs in the same thread."""

    @property
    def token(self) -> Path: ...

    def exists(self) -> bool:
        """Whether there is one, as far as can be seen without asking anybody."""
        ...

    def copy(self, target: Path) -> None:
        """Make `target` a copy as it is at one moment, without history. Raises `StartError`,
        OSError, `sqlite3.Error`."""
        ...

    def settle(self, target: Path) -> list[str]:
        """As `copying.settle`: of whom nothing is needed any more."""
        ...

    def seen(self) -> AbstractContextManager[Path]:
        """A database to look at, with its history; maybe a copy."""
        ...

    def mend(self, statements: Sequence[Statement]) -> None:
        """In one transaction. No registry may run."""
        ...

    def store(self) -> AbstractAsyncContextManager[Store]:
        """To write to by the rules. No registry may run."""
        ...

    def in_use(self) -> bool:
        """Whether a registry runs on it that is not of this state directory, as it seems."""
        ...

    def check_fillable(self, mark: str) -> None:
        """Raises `Refused` when a restore of the backup `mark` may not be put into it."""
        ...

    def fill(self, source: Path, mark: str) -> int | None:
        """Put what is in `source` into it; its revision then. None: the file itself is to be moved
        there."""
        ...


class FileRegistry:
    """In a file of SQLite."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.path = config.database_path

    @property
    def token(self) -> Path:
        return self._config.token_path

    def exists(self) -> bool:
        return self.path.exists()

    def copy(self, target: Path) -> None:
        copying.copy(self.path, target)

    def settle(self, target: Path) -> list[str]:
        return copying.settle(target, self.path)

    @contextmanager
    def seen(self) -> Iterator[Path]:
        yield self.path

    def mend(self, statements: Sequence[Statement]) -> None:
        mending.mend(self.path, statements)

    def store(self) -> AbstractAsyncContextManager[Store]:
        return open_store(self._config, None)

    def in_use(self) -> bool:
        return False  # Whoever opens the store is refused then.

    def check_fillable(self, mark: str) -> None:  # noqa: ARG002
        if self.path != self._config.state / "registry" / "registry.db":
            raise Refused(
                f"COVE_REGISTRY__DATABASE is {self.path}, outside the state directory",
                "Restore without it, and move the database there.",
            )

    def fill(self, source: Path, mark: str) -> int | None:  # noqa: ARG002
        return None


class PostgresRegistry:
    """In PostgreSQL."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._url = config.database_url
        try:
            self._postgres: Any = importlib.import_module(_POSTGRES)
        except ImportError:
            raise Refused(
                "the registry is in PostgreSQL, which needs asyncpg",
                "pip install 'cove-server[postgres]'",
            ) from None

    @property
    def token(self) -> Path:
        return self._config.token_path

    def exists(self) -> bool:
        return True

    def copy(self, target: Path) -> None:
        asyncio.run(self._postgres.copy(self._url, target))

    def settle(self, target: Path) -> list[str]:
        with _beside(target) as now:
            self.copy(now)
            return copying.settle(target, now)

    @contextmanager
    def seen(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="cove-check-") as folder:
            path = Path(folder) / "registry.db"
            asyncio.run(self._postgres.copy(self._url, path, history=True))
            yield path

    def mend(self, statements: Sequence[Statement]) -> None:
        asyncio.run(self._postgres.mend(self._url, statements))

    def store(self) -> AbstractAsyncContextManager[Store]:
        return open_store(self._config, None)

    def in_use(self) -> bool:
        used: bool = asyncio.run(self._postgres.in_use(self._url))
        return used

    def check_fillable(self, mark: str) -> None:
        with _refused():
            asyncio.run(self._postgres.check_empty(self._url, mark))

    def fill(self, source: Path, mark: str) -> int | None:
        with _refused():
            revision: int = asyncio.run(self._postgres.load(self._url, source, mark))
        return revision


def registry_of(places: Places, env: Mapping[str, str]) -> FileRegistry | PostgresRegistry:
    """Raises ConfigError for wrong variables, `Refused` where it cannot be used here."""
    own = {**env, "COVE_STATE": str(places.state), "COVE_RUNTIME": str(places.runtime)}
    found = Config.from_env(own)
    return PostgresRegistry(found) if found.database_url else FileRegistry(found)


@contextmanager
def _refused() -> Iterator[None]:
    from services.registry.postgres.copying import NotEmpty

    try:
        yield
    except NotEmpty:
        raise Refused("the database is not empty", _EMPTY) from None
    except StartError as error:
        raise Refused(str(error), "See that it can be reached and written to.") from None


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    beside = path.with_name(f"{path.name}.now")
    try:
        yield beside
    finally:
        remove_database(beside)


def remove_database(path: Path) -> None:
    """With what SQLite leaves beside it when it is killed."""
    for name in ("", "-journal", "-wal", "-shm"):
        Path(f"{os.fspath(path)}{name}").unlink(missing_ok=True)
