"""Settings of the executor."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from servicekit.config import ByteSize, ServerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    """Each field is set by the variable `COVE_EXECUTOR__<FIELD>`."""

    service: ClassVar[str] = "executor"

    drivers: tuple[str, ...] = field(default=("local",), metadata={"variable": "COVE_DRIVERS"})
    """What environments of this node may stand on, separated by commas, as the provider has it."""

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

    retention_execution: ByteSize = 256 << 20
    """How much output of one execution is kept on disk; the middle of more goes. 0: all."""

    retention_head: ByteSize = 1 << 20
    """How much of its beginning is kept always, at most half of that."""

    retention_environment: ByteSize = 2 << 30
    """How much output of all executions of an environment is kept; those that ended longest ago
    lose theirs first. 0: all."""

    retention_age: timedelta = timedelta(days=7)
    """How long an execution that has ended is kept. 0: as long as its environment."""
