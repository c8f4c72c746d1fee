"""What is remembered of each worktree: a small file beside it."""

import json
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from servicekit.config import StartError
from services.git import files
from services.git.errors import BranchExists, WorktreeNotFound
from services.git.kept import KeptCommits

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


class Records:
    """All records of this node, in memory and on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.kept = KeptCommits(root.with_name("kept"))
        """Of worktrees that are on other nodes."""
        self._records: dict[str, Record] = {}
        self._branches: dict[tuple[str, str, str], str] = {}
        self._users: Counter[tuple[str, str]] = Counter()
        self._layers: Counter[str] = Counter()
        self._order: list[str] = []

    def load(self) -> list[Path]:
        """Read what is on disk. Returns directories without a record: half-removed ones."""
        self._root.mkdir(exist_ok=True, mode=0o711)
        self.kept.load()
        strays = []
        for directory in sorted(self._root.iterdir()):
            try:
                record = recorded(directory)
            except ValueError as error:  # Of a later version, or damaged: not to be guessed at.
                raise StartError(f"{directory}: {error}: see cove admin check") from None
            if record is None:
                strays.append(directory)
                continue
            files.sweep(directory)
            files.sweep(directory / "outside")
            self._note(record)
        return strays

    def __iter__(self) -> Iterator[Record]:
        return self.after("")

    def after(self, uid: str, tenant: str = "") -> Iterator[Record]:
        """Those whose uid comes after `uid`, in order; of `tenant`, or of all."""
        start = bisect_right(self._order, uid)
        for other in self._order[start:]:
            record = self._records[other]
            if not tenant or record.tenant == tenant:
                yield record

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

    def ready(self, uid: str) -> Record:
        """One that is complete, and not being removed. Raises `WorktreeNotFound`."""
        record = self.get(uid)
        if record.state is not State.READY:
            raise WorktreeNotFound("the worktree is not complete", uid=uid)
        return record

    def keep(self, record: Record, *, durable: bool = True) -> Record:
        """Write it; if durable, it survives a power loss from now on. Raises `BranchExists`, and
        `WorktreeNotFound` where it was removed meanwhile.

        What was kept before survives one in any case, if it was durable.
        """
        if self._branches.get(_branch(record), record.uid) != record.uid:
            raise BranchExists("another workspace has the branch", branch=record.branch)
        former = self._records.get(record.uid)
        if record.state is State.READY and (former is None or former.state is State.REMOVING):
            raise WorktreeNotFound("the worktree was removed", uid=record.uid)
        directory = self.directory(record.uid)
        directory.mkdir(exist_ok=True, mode=0o711)
        data = json.dumps(written(record)).encode()
        path, whole = directory / RECORD, former is not None
        files.write(path, data, mode=0o600, durable=durable, whole=whole)
        if durable and (former is None or former.state is State.CREATING):
            files.sync_directory(self._root)
        self._note(record)
        return record

    def sync(self, uid: str, *, new: bool = False) -> None:
        """What was kept survives a power loss from now on, unless its directory is gone. The
        directory does so too if it is `new`."""
        with suppress(FileNotFoundError):
            files.sync(self.directory(uid) / RECORD)
            files.sync_directory(self.directory(uid))
            if new:
                files.sync_directory(self._root)

    def removing(self, record: Record) -> Record:
        """Keep that it is being removed, for good. That takes no room: its record gets another
        name."""
        directory = self.directory(record.uid)
        with suppress(FileNotFoundError):
            (directory / RECORD).rename(directory / REMOVING)
            files.sync_directory(directory)
        record = replace(record, state=State.REMOVING, freezing="")
        self._note(record)
        return record

    def drop(self, uid: str) -> None:
        """Forget it; the caller has removed its directory."""
        record = self._records.pop(uid, None)
        if record is not None:
            del self._branches[_branch(record)]
            self._users[record.tenant, record.key] -= 1
            self._layers.subtract(_layers(record))
            del self._order[bisect_left(self._order, uid)]

    def users_of(self, tenant: str, key: str) -> int:
        """How many worktrees a repository has, with those that it keeps commits for."""
        return self._users[tenant, key] + self.kept.users_of(tenant, key)

    def stand_on(self, layer: str) -> bool:
        """Whether a worktree or a snapshot needs a frozen layer."""
        return self._layers[layer] > 0

    def repositories(self) -> list[tuple[str, str]]:
        """Tenant and key of each repository that has worktrees."""
        return [name for name, count in self._users.items() if count > 0]

    def _note(self, record: Record) -> None:
        former = self._records.get(record.uid)
        if former is None:
            insort(self._order, record.uid)
            self._users[record.tenant, record.key] += 1
        else:
            self._layers.subtract(_layers(former))
        self._layers.update(_layers(record))
        self._records[record.uid] = record
        self._branches[_branch(record)] = record.uid


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


def layers_of(record: Record) -> list[str]:
    """Names of the frozen layers that a worktree and its snapshots need."""
    return _layers(record)


def _content(path: Path) -> bytes:
    """Nothing where there is no record, or one that never got to the disk."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _branch(record: Record) -> tuple[str, str, str]:
    return record.tenant, record.key, record.branch


def _layers(record: Record) -> list[str]:
    found = [*record.layers, *(name for one in record.snapshots for name in one.layers)]
    return [*found, record.freezing] if record.freezing else found
