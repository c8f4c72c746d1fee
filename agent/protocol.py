"""What provider and launcher say to each other: one JSON object each way."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self


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
class Limits:
    """Of all processes of a sandbox together; 0 is none."""

    memory_bytes: int = 0
    pids: int = 0
    cpu_millis: int = 0
    """1000 is one processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """A sandbox to start. Without `worktree`, `home` or `tmp` there is a small tmpfs instead."""

    uid: str
    worktree: str = ""
    home: str = ""
    tmp: str = ""
    mounts: tuple[Mount, ...] = ()
    limits: Limits = field(default_factory=Limits)
    idle_timeout_seconds: float = 0.0
    """The agent ends after so long without a process and a connection; 0 is never."""
    shm_bytes: int = 64 << 20

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises TypeError or KeyError when `data` is of another shape."""
        values = dict(data)
        values["mounts"] = tuple(Mount(**mount) for mount in values.get("mounts", ()))
        values["limits"] = Limits(**values.get("limits", {}))
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

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "mode": Mode(data["mode"])})


def encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def decode(payload: bytes) -> dict[str, Any]:
    """Raises ValueError when it is no JSON object."""
    message = json.loads(payload)
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message
