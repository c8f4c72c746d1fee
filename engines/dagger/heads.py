"""What environments stand on now: a folder each, below the state directory of this process.

    <root>/<uid>/record   what was asked for
                 head     which container that is now; written before a command starts and after it

The engine's state is a cache. So nothing here is believed before the engine says the same; and
what the engine has lost is made anew from the record and the worktree.
"""

import json
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from agent.handle import Handle, valid_uid

DRIVER: Final = "dagger"
_VERSION: Final = 1
_EPOCH: Final = re.compile(r"[0-9a-f]{16}")
_CONTAINER: Final = re.compile(r"[A-Za-z0-9+/=_-]{1,1024}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What an environment was asked for."""

    uid: str
    tenant: str
    image: str
    """As it was asked for; empty is the default."""
    digest: str
    """What that was when it was first made: by this it is made anew."""
    setup: tuple[str, ...]
    tree: str
    """The worktree, on this host."""
    made: float
    """Seconds since 1970."""
    stopped: bool = False
    revision: int = 0
    """Of `stopped`."""
    rebuild: bool = False
    """Whether it may be made anew on another engine when its own does not answer."""

    def same(self, other: "Record") -> bool:
        return (self.tenant, self.image, self.setup, self.tree) == (
            other.tenant,
            other.image,
            other.setup,
            other.tree,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One generation of an environment."""

    uid: str
    engine: str
    """Its name: an environment stays on the engine it was made on."""
    epoch: str
    """Random, of each making: containers of an earlier making are told apart by it."""
    generation: int
    """Grows with each command that ran, whatever it did; also when it is made anew."""
    container: str
    """The engine's own name for it, which an engine that has restarted gives to another."""
    layers: int = 0
    """Mounted over the image, about."""
    dirty: bool = False
    """Whether /workspace in it may differ from the worktree, which is the truth."""

    def handle(self, node: str) -> bytes:
        """As callers have it. `dirty` and `layers` are no business of theirs."""
        locator = f"{_VERSION}.{self.epoch}.{self.container}"
        return Handle(
            driver=DRIVER,
            node=node,
            uid=self.uid,
            generation=self.generation,
            engine=self.engine,
            locator=locator,
        ).encode()

    @classmethod
    def of(cls, handle: bytes, node: str) -> Self:
        """What a handle says, which nobody believes yet. Raises ValueError."""
        found = Handle.decode(handle)
        if (found.driver, found.node) != (DRIVER, node):
            raise ValueError("of another driver or node")
        version, _, rest = found.locator.partition(".")
        epoch, _, container = rest.partition(".")
        if version != str(_VERSION):
            raise ValueError("of an unknown version")
        if not (_EPOCH.fullmatch(epoch) and _CONTAINER.fullmatch(container) and found.engine):
            raise ValueError("not a handle")
        return cls(
            uid=found.uid,
            engine=found.engine,
            epoch=epoch,
            generation=found.generation,
            container=container,
            dirty=True,
        )


class Heads:
    """All that this process keeps. Small files: written whole, and synced."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._touches: Counter[str] = Counter()
        self._writing = threading.RLock()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def uids(self) -> list[str]:
        return sorted(each.name for each in self._root.iterdir() if valid_uid(each.name))

    def record(self, uid: str) -> Record | None:
        """None when nothing is there, or what is there is of another version."""
        found = self._read(uid, "record")
        return Record(**{**found, "setup": tuple(found["setup"])}) if found else None

    def head(self, uid: str) -> Head | None:
        found = self._read(uid, "head")
        return Head(**found) if found else None

    def keep(self, value: Record | Head) -> None:
        """Write it, durably. Raises OSError."""
        name = "record" if isinstance(value, Record) else "head"
        folder = self._folder(value.uid)
        with self._writing:
            if not folder.exists():
                folder.mkdir(mode=0o700)
                _sync(self._root)
            writing = folder / f"{name}.new"
            with writing.open("wb") as file:
                file.write(json.dumps({"version": _VERSION, **asdict(value)}).encode())
                file.flush()
                os.fsync(file.fileno())
            writing.replace(folder / name)
            _sync(folder)

    def touches(self, uid: str) -> int:
        """How often the worktree was touched. To be asked before it is brought in: see `settle`."""
        return self._touches[uid]

    def settle(self, head: Head, touches: int) -> Head:
        """Keep a generation, into which the worktree was brought when it had been touched so often:
        what somebody changed since is not in it. As it is kept. Raises OSError."""
        with self._writing:
            head = replace(head, dirty=head.dirty or self._touches[head.uid] != touches)
            self.keep(head)
        return head

    def touched(self, uid: str) -> None:
        """Somebody changes the worktree: it is brought in before the next command."""
        with self._writing:
            self._touches[uid] += 1
            head = self.head(uid)
            if head and not head.dirty:
                self.keep(replace(head, dirty=True))

    def remove(self, uid: str) -> bool:
        """Forget an environment; whether there was one."""
        folder = self._folder(uid)
        if not folder.exists():
            return False
        (folder / "record").unlink(missing_ok=True)  # Without it, what is left is none.
        shutil.rmtree(folder)
        self._touches.pop(uid, None)
        return True

    def _folder(self, uid: str) -> Path:
        if not valid_uid(uid):
            raise ValueError("not the uid of an environment")
        return self._root / uid

    def _read(self, uid: str, name: str) -> Mapping[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self._folder(uid) / name).read_bytes())
            return found if found.pop("version") == _VERSION else None
        except (FileNotFoundError, KeyError, ValueError):
            return None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
