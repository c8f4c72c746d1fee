"""What registry and tools have of each environment, read from disk."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from agent.handle import valid_uid
from cove.registry.v1.registry_pb2 import Environment
from services.git import record as worktrees
from services.registry import copying

LOST: Final = "lost+found"
_SETTLED: Final = (Environment.STATE_READY, Environment.STATE_SUSPENDED)


@dataclass(frozen=True, slots=True)
class Worktree:
    """One of git's, or what is left of one."""

    record: worktrees.Record | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A state directory at one moment. Lists of it are in the order of uids."""

    state: Path
    environments: Mapping[str, Environment]
    worktrees: Mapping[str, Worktree]
    provisioned: frozenset[str]
    executions: frozenset[str]
    running: bool = False
    """Whether the suite runs on it: then some of it is on its way."""
    busy: frozenset[str] = field(default=frozenset())
    """Uids with which somebody is doing something."""

    @property
    def settled(self) -> list[Environment]:
        """Environments that have all their parts, if all is well."""
        return [
            each
            for uid, each in self.environments.items()
            if each.state in _SETTLED and uid not in self.busy
        ]

    def unknown(self, uids: Mapping[str, object] | frozenset[str]) -> list[str]:
        """Those that no environment has."""
        return sorted(uid for uid in uids if uid not in self.environments)


class Disk(NamedTuple):
    """What the tools have of environments on disk."""

    state: Path
    worktrees: Mapping[str, Worktree]
    provisioned: frozenset[str]
    executions: frozenset[str]


def look(state: Path) -> Disk:
    """Raises OSError."""
    return Disk(
        state,
        _worktrees(state / "git" / "worktrees"),
        _uids(state / "provider" / "environments"),
        _uids(state / "executor" / "executions"),
    )


def read(disk: Disk, database: Path, *, running: bool) -> Node:
    """What the registry says of what was on the disk before. Raises `sqlite3.Error`."""
    environments = {each.uid: each for each in copying.environments(database)}
    busy = [uid for uid, each in environments.items() if each.operation and running]
    return Node(
        **disk._asdict(),
        environments=environments,
        running=running,
        busy=frozenset(busy),
    )


def _worktrees(root: Path) -> dict[str, Worktree]:
    return {uid: _worktree(root / uid) for uid in sorted(_uids(root))}


def _worktree(folder: Path) -> Worktree:
    try:
        record = worktrees.recorded(folder)
    except OSError as error:
        return Worktree(None, f"its record cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError) as error:
        return Worktree(None, f"its record is damaged: {error}")
    if record is None:
        return Worktree(None, "its record is not there")
    if record.uid != folder.name:
        return Worktree(None, f"its record is that of {record.uid}")
    return Worktree(record)


def _uids(root: Path) -> frozenset[str]:
    try:
        return frozenset(each.name for each in root.iterdir() if valid_uid(each.name))
    except FileNotFoundError:
        return frozenset()


HIDDEN: Final = re.compile(r"\..+\.[0-9a-f]{8}")
"""Names of files and directories that were being written when somebody was killed."""
