"""What is remembered of each worktree: a small file beside it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from services.git import files
from services.git.errors import BranchExists, WorktreeNotFound


class State(StrEnum):
    """How far a worktree is."""

    CREATING = "creating"
    READY = "ready"
    REMOVING = "removing"


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
    state: State = State.CREATING
    base_commit: str = ""
    base_branch: str = ""
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


class Records:
    """All records of this node, in memory and on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._records: dict[str, Record] = {}

    def load(self) -> list[Path]:
        """Read what is on disk. Returns directories without a record: half-removed ones."""
        self._root.mkdir(exist_ok=True, mode=0o711)
        strays = []
        for directory in sorted(self._root.iterdir()):
            try:
                values = json.loads((directory / "record.json").read_bytes())
            except FileNotFoundError:
                strays.append(directory)
                continue
            values["state"] = State(values["state"])
            values["warnings"] = tuple(values["warnings"])
            values["last_skipped"] = tuple((path, why) for path, why in values["last_skipped"])
            values["provenance_running"] = tuple(values.get("provenance_running", ()))
            record = Record(**values)
            self._records[record.uid] = record
        return strays

    def __iter__(self) -> Iterator[Record]:
        return iter(sorted(self._records.values(), key=lambda record: record.uid))

    def directory(self, uid: str) -> Path:
        """Where everything of a worktree is."""
        return self._root / uid

    def find(self, uid: str) -> Record | None:
        return self._records.get(uid)

    def get(self, uid: str) -> Record:
        """Raises `WorktreeNotFound`."""
        record = self.find(uid)
        if record is None:
            raise WorktreeNotFound("no such worktree", uid=uid)
        return record

    def keep(self, record: Record, *, durable: bool = True) -> Record:
        """Write it; if durable, it survives a power loss from now on. Raises `BranchExists`."""
        for other in self._records.values():
            same = (other.tenant, other.key, other.branch) == (
                record.tenant,
                record.key,
                record.branch,
            )
            if same and other.uid != record.uid:
                raise BranchExists("another worktree has the branch", branch=record.branch)
        directory = self.directory(record.uid)
        directory.mkdir(exist_ok=True, mode=0o711)
        data = json.dumps(asdict(record)).encode()
        files.write(directory / "record.json", data, mode=0o600, durable=durable)
        if durable:
            files.sync_directory(self._root)
        self._records[record.uid] = record
        return record

    def drop(self, uid: str) -> None:
        """Forget it; the caller has removed its directory."""
        self._records.pop(uid, None)

    def users_of(self, tenant: str, key: str) -> int:
        """How many worktrees a repository has."""
        return sum((other.tenant, other.key) == (tenant, key) for other in self._records.values())
