"""Settings of the executor."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from servicekit.config import ServerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    """Each field is set by the variable `COVE_EXECUTOR__<FIELD>`."""

    service: ClassVar[str] = "executor"

    node: str = ""
    """Name of this node; a handle of another is refused. Empty: the name in a handle is
    not looked at, which is right where one machine is all there is."""

    heartbeat: timedelta = timedelta(seconds=10)
    """How often a stream without output says that it is alive."""

    secrets: Path | None = None
    """Directory of the secrets that commands may have by name: `<tenant>/<name>`, a file that
    only this service may read. Empty: `executor/secrets` below `COVE_STATE`."""

    disk_limit: float = 0.9
    """Share of the state's disk that may be used; above it no new command is started.
    What exists can still be read and deleted."""
