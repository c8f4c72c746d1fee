"""What is remembered of each worktree: a small file beside it."""

import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

VERSION: Final = 2
"""Of what is on disk. Version 1 had an index and a view of .git in place of layers."""

RECORD: Final = "record.json"
REMOVING: Final = "removing.json"
"""Its name when the worktree is being removed."""


class State(StrEnum):
    """How far a worktree is."""

    CREATING = "creating"
    READY = "ready"
    REMOVING = "removing"


class Mode(StrEnum):
    """How the files of a worktree come together."""

    PLAIN = "plain"
    """A whole checkout of its own."""
    TRUSTED = "trusted"
    """An overlay that root mounts: the marks are in `trusted.overlay.*`."""
    USER = "user"
    """An overlay that an ordinary user mounts: the marks are in `user.overlay.*`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A worktree as it was: the layers that it stood on, and its head."""

    id: str
    layers: tuple[str, ...]
    head: str
    time: float
    request: str = ""
    """Id of the request that it was taken for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One worktree. `key` names its repository among those of its tenant."""

    uid: str
    tenant: str
    asked: str
    """URL of the origin as the caller wrote it; empty: none."""
    repository: str
    """The same as everyone writes it."""
    key: str
    revision: str
    branch: str
    create_time: float
    depth: int = 0
    """Commits of history that were asked for; 0: all."""
    filter: str = ""
    """Which contents were asked for, as git's --filter says it; empty: all."""
    plain: bool = False
    """Whether `mode` must be PLAIN."""
    version: int = VERSION
    mode: Mode = Mode.PLAIN
    state: State = State.CREATING
    base_commit: str = ""
    base_branch: str = ""
    checkout: str = ""
    """The commit whose checkout is the lowest layer; empty: none."""
    layers: tuple[str, ...] = ()
    """Names of frozen layers above it, the topmost first."""
    freezing: str = ""
    """The name of the layer that the upper one is becoming."""
    snapshots: tuple[Snapshot, ...] = ()
    """The oldest first."""
    source: tuple[str, str] = ("", "")
    """The worktree, and its snapshot, that it was made of."""
    inside: str = ""
    """The head inside when it was last looked at: what has moved since, moved there."""
    resolved_time: float = 0
    warnings: tuple[str, ...] = ()
    last_request: str = ""
    """Request id of the last commit, written before the branch moves to it."""
    last_commit: str = ""
    last_skipped: tuple[tuple[str, str], ...] = field(default=())
    """Paths (as file system text) that commit left out, and why."""
    provenance_time: float = 0
    """Up to when what ran is told of in the provenance of a commit; 0: there is none yet."""
    provenance_running: tuple[str, ...] = ()
    """Ids of the executions that were told of without an end."""


def recorded(directory: Path) -> Record | None:
    """The record of the worktree in a directory, if there is one. Raises as `decoded`."""
    if data := _content(directory / RECORD):
        return decoded(data)
    if data := _content(directory / REMOVING):
        return replace(decoded(data), state=State.REMOVING, freezing="")
    return None


def written(record: Record) -> dict[str, Any]:
    """As `decoded` reads it; so does an earlier version, where nothing new is used."""
    values = asdict(record)
    if not record.plain:
        del values["plain"]
    return values


def decoded(data: bytes) -> Record:
    """A record as it was written, by this version or an earlier one. Raises ValueError, TypeError
    and KeyError for what is none, or of a later one."""
    values = {"version": 1, **json.loads(data)}
    if values["version"] > VERSION:
        raise ValueError(f"a worktree of version {values['version']}; {VERSION} is known here")
    values["state"] = State(values["state"])
    values["mode"] = Mode(values.get("mode", Mode.PLAIN))
    values["layers"] = tuple(values.get("layers", ()))
    values["source"] = tuple(values.get("source", ("", "")))
    values["snapshots"] = tuple(
        Snapshot(**{**one, "layers": tuple(one["layers"])}) for one in values.get("snapshots", ())
    )
    values["warnings"] = tuple(values["warnings"])
    values["last_skipped"] = tuple((path, why) for path, why in values["last_skipped"])
    values["provenance_running"] = tuple(values.get("provenance_running", ()))
    return Record(**values)


def _content(path: Path) -> bytes:
    """Nothing where there is no record, or one that never got to the disk."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def layers_of(record: Record) -> list[str]:
    """Names of the frozen layers that a worktree and its snapshots need."""
    found = [*record.layers, *(name for one in record.snapshots for name in one.layers)]
    return [*found, record.freezing] if record.freezing else found
