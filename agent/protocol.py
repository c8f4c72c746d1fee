"""What provider and launcher say to each other: one JSON object each way.

Either may be one version older than the other: what is not known is not read, and what is not
needed is not said.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Self

SPEC_VERSION: Final = 2
"""Of SandboxSpec; 2 has `overlay` and `lock`. Facts tell which one a launcher reads."""


class Mode(StrEnum):
    """As whom sandboxes run."""

    ROOT = "root"
    """The launcher is root: it mounts, then drops to SANDBOX_UID before bwrap."""
    USER = "user"
    """All in a user namespace of the launcher's own user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory or file of the host, bound into the sandbox."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """Directories of the host that are one tree in the sandbox. None may be a symlink."""

    lowers: tuple[str, ...]
    """Read-only, the topmost first; at most `overlay.MOST_LOWERS`."""
    upper: str
    work: str
    """An empty directory beside `upper`, for the kernel."""
    xattrs: str
    """`overlay.TRUSTED` or `overlay.USER`: where the marks in `upper` and `lowers` are."""
    stack: str = ""
    """A file that names more layers, as `agent.stack` reads it. They are above `lowers`, and count
    among the `MOST_LOWERS`. It is read when the lock is held."""
    layers: str = ""
    """The directory that they are in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of all processes of a sandbox together; 0 is none."""

    memory_bytes: int = 0
    pids: int = 0
    cpu_millis: int = 0
    """1000 is one processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """A sandbox to start.

    Without `worktree` and `overlay`, `home` or `tmp` there is a small tmpfs instead.
    """

    uid: str
    worktree: str = ""
    home: str = ""
    tmp: str = ""
    mounts: tuple[Mount, ...] = ()
    limits: Limits = field(default_factory=Limits)
    idle_timeout_seconds: float = 0.0
    """The agent ends after so long without a process and a connection; 0 is never."""
    shm_bytes: int = 64 << 20
    overlay: Overlay | None = None
    """What is at /workspace instead of `worktree`."""
    lock: str = ""
    """A file that is there, on which a shared flock(2) is held for as long as the sandbox lives."""
    beside: bool = False
    """Its agent only moves files: another one, that of a driver, starts commands. So its socket is
    in `f/`, and the other's in `a/`."""

    @property
    def workspace(self) -> str:
        """The directory that stands for what is at /workspace; empty for a tmpfs."""
        return self.overlay.upper if self.overlay else self.worktree

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        for name in ("overlay", "lock", "beside"):
            if not values[name]:
                del values[name]
        if self.overlay and not self.overlay.stack:
            del values["overlay"]["stack"], values["overlay"]["layers"]
        return values

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises TypeError or KeyError when `data` is of another shape."""
        values = dict(data)
        values["mounts"] = tuple(Mount(**mount) for mount in values.get("mounts", ()))
        values["limits"] = Limits(**values.get("limits", {}))
        if overlay := values.get("overlay"):
            values["overlay"] = Overlay(**{**overlay, "lowers": tuple(overlay["lowers"])})
        return cls(**values)


class State(StrEnum):
    ABSENT = "absent"
    """Dormant: no process of this uid is there."""
    RUNNING = "running"
    """Started. Whether the agent answers, its socket tells: connects wait until it is ready."""
    ENDING = "ending"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxStatus:
    """What the launcher knows of one uid."""

    uid: str
    state: State = State.ABSENT
    socket: str = ""
    """The agent's."""
    pid: int = 0
    """Of the agent, in the launcher's namespace; 0 until bwrap has told."""
    started: float = 0.0
    """Seconds since 1970."""
    cgroups: tuple[str, ...] = ()
    """Of the environment, one for each hierarchy; in each, `agent` is the agent's own."""
    error: str = ""
    """What the last sandbox of this uid said when it could not start."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        values = dict(data)
        values["state"] = State(values["state"])
        values["cgroups"] = tuple(values["cgroups"])
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What this launcher can do on this host."""

    version: int
    mode: Mode
    node: str
    sandbox_uid: int
    bwrap: str
    """Its version; empty when there is none."""
    memory: str
    """How the limit is enforced: cgroup_v1, cgroup_v2, or empty when it cannot be."""
    pids: str
    """As `memory`, or rlimit."""
    cpu: str
    problem: str = ""
    """Why no sandbox can be made here, as far as is known without trying; with the remedy."""
    spec: int = 1
    """The highest SPEC_VERSION that it reads."""
    way_out: bool = False
    """Whether its agents can open a listener for the proxy."""
    freeze: str = ""
    """By what it holds sandboxes still: cgroup_v1, cgroup_v2, signals; empty: it does not."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        known = {each.name: data[each.name] for each in fields(cls) if each.name in data}
        return cls(**{**known, "mode": Mode(data["mode"])})

    def to_json(self, reader: int) -> dict[str, Any]:
        """For a client whose specs are of version `reader`: 1 knows not `spec` and what follows."""
        values = asdict(self)
        if reader < 2:
            del values["spec"], values["freeze"], values["way_out"]
        return values


def encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def decode(payload: bytes) -> dict[str, Any]:
    """Raises ValueError when it is no JSON object."""
    message = json.loads(payload)
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message
