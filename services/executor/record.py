"""What is known of one execution."""

from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, Self

from services.executor.ending import End


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one execution may use; 0 is no limit."""

    memory_bytes: int = 0
    processes: int = 0
    milli_cpus: int = 0
    open_files: int = 0
    cpu_time_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to run, with every default filled in. One of `argv` and `script`."""

    argv: tuple[str, ...] = ()
    script: str = ""
    interpreter: str = ""
    cwd: str = ""
    env: dict[str, str] = field(default_factory=dict)
    merge_stderr: bool = False
    timeout_ns: int
    idle_output_timeout_ns: int = 0
    limits: Limits = field(default_factory=Limits)
    output_limit: int = 0
    stdin: bool = False
    """Whether it has an input, which a terminal is too."""
    rows: int = 0
    cols: int = 0
    """Of its terminal; 0 for none."""

    secrets: tuple[str, ...] = ()
    """Their names, in order."""
    redact: bool = False

    @property
    def has_input(self) -> bool:
        return self.stdin

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        lists = {name: tuple(values.get(name, ())) for name in ("argv", "secrets")}
        limits = Limits(**values.get("limits", {}))
        return cls(**(values | lists | {"limits": limits}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One execution, as it was recorded."""

    uid: str
    execution_id: str
    spec: Spec
    created_ns: int
    token: str
    """Tells it from an earlier one of the same id, for the agent remembers ids."""
    folder: Path
    disk_bytes: int = 0
    """Limit of its environment; 0 is none."""
    tenant: str = ""
    """Empty where an earlier version recorded it."""
    groups: tuple[str, ...] = ()
    """Paths of its control groups, as far as they were known when it was recorded."""

    @property
    def name(self) -> str:
        return f"environments/{self.uid}/executions/{self.execution_id}"

    @property
    def key(self) -> str:
        """Names it to the agent. No other execution ever has the same."""
        return f"{self.execution_id}.{self.token}"


class State(Enum):
    """How far an execution is."""

    STARTING = auto()
    """The agent has not begun; perhaps it was never asked."""
    RUNNING = auto()
    ENDED = auto()
    REMOVED = auto()


@dataclass(frozen=True, slots=True)
class Progress:
    """What the disk tells of an execution."""

    state: State
    end: End | None = None
