"""Settings of the registry."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from servicekit.config import ServerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    """Each field is set by the variable `COVE_REGISTRY__<FIELD>`."""

    service: ClassVar[str] = "registry"

    database: Path | None = None
    """SQLite file of every environment; made if absent, 0600 in a folder of 0700.
    Default: `registry/registry.db` in the state directory."""

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
        return self.database or self.state / "registry" / "registry.db"

    @property
    def token_path(self) -> Path:
        return self.token_file or self.state / "registry" / "token"
