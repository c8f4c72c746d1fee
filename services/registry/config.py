"""Settings of the registry."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final

from servicekit.config import ServerConfig

_SCHEMES: Final = ("postgresql://", "postgres://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    """Each field is set by the variable `COVE_REGISTRY__<FIELD>`."""

    service: ClassVar[str] = "registry"

    database: str = field(default="", repr=False)
    """Path of the SQLite file of every environment, made if absent, 0600 in a folder of 0700;
    or `postgresql://user:password@host/database`, which several registries may share, see
    docs/operations.md. Default: `registry/registry.db` in the state directory."""

    token_file: Path | None = None
    """File (0600) with the token of the first user; made at the first start.
    Default: `registry/token` in the state directory."""

    history: timedelta = timedelta(hours=24)
    """How long changes are kept for watchers to resume from."""

    history_revisions: int = 100_000
    """How many changes are kept at most."""

    heartbeat: timedelta = timedelta(seconds=10)
    """How long a watch is silent before it tells that it is alive."""

    @property
    def database_path(self) -> Path:
        return Path(self.database or self.state / "registry" / "registry.db")

    @property
    def database_url(self) -> str:
        """Of PostgreSQL; empty when the database is a file."""
        return self.database if self.database.startswith(_SCHEMES) else ""

    @property
    def token_path(self) -> Path:
        return self.token_file or self.state / "registry" / "token"
