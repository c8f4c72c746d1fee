"""What a backup holds of a state directory, and in which order it is read while all goes on.

The registry is copied first. For each environment it names, what it needs is read after that: it
was there before the record said so, and goes only when the environment is deleted, which a second
look at the registry finds. Nothing is read of environments that came later. Within git what names
comes before what is named, as objects never go while a worktree stands on them; a worktree's
layers rest as long as its lock is shared, and its record is read when they have been.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from cove_server.admin.archive import Archive
from cove_server.admin.walk import walk
from services.git import repositories, shelf
from services.git.record import Record, State, decoded, layers_of

TOP: Final = ("registry", "git", "provider", "executor", "node")
"""What there is of a state directory to be kept; the rest is made anew."""

_KEYS: Final = ("git/signing.key", "git/page.key", "provider/page.key", "executor/page.key")
_ORDER: Final = ("end", "result", "log", "hole", "groups", "spec")
"""Of an execution: the end names a whole result, the log has all of both, and a hole in it was
noted before it was made."""
_PATIENCE: Final = 30.0
_LOOK: Final = 0.05
_ROUNDS: Final = 20
_SHARED: Final = 1
"""Slashes in the path of a directory that environments share."""
_HASH: Final = 38
"""Characters in the name of a loose object."""

Told = Callable[[str, str], None]
"""Is given the path of what was left out, and why."""


class Parts:
    """Reads a state directory into an archive."""

    def __init__(self, state: Path, archive: Archive, left_out: Told) -> None:
        self._state = state
        self._archive = archive
        self._left_out = left_out
        self._done: set[str] = set()
        self._repositories: dict[tuple[str, str], None] = {}
        self._made: set[str] = set()

    def shared(self) -> None:
        """What belongs to no environment."""
        for name in ("node", *_KEYS):
            self.whole(name)

    def users(self) -> None:
        """Which tenant has which uid. After the worktrees: none may be of an unknown one."""
        self.whole("git/uids.json")

    def folder(self, name: str) -> None:
        """A directory itself."""
        self._above(name.split("/"))

    def environment(self, uid: str) -> None:
        """Everything of one but what its repository holds."""
        self._made = {path for path in self._made if path.count("/") <= _SHARED}
        self._worktree(uid)
        self.whole(f"provider/environments/{uid}/record")
        self.whole(f"provider/environments/{uid}/home")
        self._executions(uid)

    def repositories(self) -> None:
        """Those that worktrees stand on. Called last."""
        for tenant, key in self._repositories:
            home = f"git/repositories/{tenant}/{key}"
            self.whole(f"{home}.json")
            self.whole(f"{home}.git", partial(_no_ref, f"{home}.git"))
            # Loose ones first: they may be packed meanwhile, never the other way.
            self.whole(f"{home}.git/packed-refs")
            self._objects(f"{home}.git/objects")

    def whole(self, name: str, skip: Callable[[str], bool] = lambda _: False) -> bool:
        """A file or a directory with all below it; whether it was there."""
        *folders, last = name.split("/")
        parent = self._opened("/".join(folders))
        if parent is None:
            return False
        try:
            there = False
            for seen in walk(parent, last, lambda path: skip("/".join((*folders, path)))):
                path = "/".join((*folders, seen.path))
                if seen.problem:
                    self._left_out(path, seen.problem)
                    continue
                if not there:
                    self._above(folders)
                there = True
                self._archive.add(path, seen.descriptor)
            return there
        finally:
            os.close(parent)

    def _worktree(self, uid: str) -> None:
        home = f"git/worktrees/{uid}"
        with _resting(self._state / home / "lock") as rests:
            if not rests:
                self._left_out(home, "git was changing its layers for too long")
            try:
                found, data, record = self._layers(home)
            except FileNotFoundError:
                return
            except (ValueError, KeyError, TypeError):
                self._left_out(home, "its record is damaged")
                return
            self._checkouts(record)
            if record.state is not State.CREATING:
                for name in ("upper", "tree", "work", "outside", "lock", "stack"):
                    self.whole(f"{home}/{name}", lambda path: path.startswith(f"{home}/work/"))
                self._repositories[_folder_of(record), record.key] = None
            self._above(home.split("/"))
            self._archive.add_bytes(f"{home}/record.json", data, found)

    def _layers(self, home: str) -> tuple[os.stat_result, bytes, Record]:
        """The record of a worktree, all of whose layers have been read. Raises FileNotFoundError,
        and what a damaged one makes `decoded` raise."""
        while True:
            with (self._state / home / "record.json").open("rb") as file:
                found, data = os.fstat(file.fileno()), file.read()
            record = decoded(data)
            wanted = [f"git/layers/{name}" for name in dict.fromkeys(layers_of(record))]
            if self._done.issuperset(wanted):
                return found, data, record
            for name in wanted:
                if name not in self._done:
                    self._done.add(name)
                    self.whole(name)

    def _checkouts(self, record: Record) -> None:
        """The one that it stands on, and those which that one is a layer over."""
        commit = record.checkout
        while commit:
            home = f"git/checkouts/{_folder_of(record)}/{record.key}/{commit}"
            if home in self._done:
                return
            self._done.add(home)
            meta = shelf.meta(self._state / home)
            self.whole(home)
            commit = meta.parent if meta else ""

    def _executions(self, uid: str) -> None:
        home = f"executor/executions/{uid}"
        for name in _names(self._state / home):
            if name.startswith("."):
                continue
            if not self.whole(f"{home}/{name}", f"{home}/{name}".__ne__):
                continue
            for file in _ORDER:
                self.whole(f"{home}/{name}/{file}")

    def _objects(self, home: str) -> None:
        """They only move, into packs: looked for until there is none that was not seen."""
        known: set[str] = set()

        def seen(path: str) -> bool:
            name = path.rpartition("/")[2]
            if path in known or name.startswith(("tmp_", ".tmp-")) or name.endswith(".lock"):
                return True
            if path != home and "." not in name and len(name) < _HASH:
                return False  # A directory.
            if path != home:
                known.add(path)
            return False

        for _ in range(_ROUNDS):
            before = len(known)
            self.whole(home, seen)
            if len(known) == before:
                return
        self._left_out(home, "its packs change all the time")

    def _above(self, folders: Iterable[str]) -> None:
        """The directories above something, once each."""
        path = ""
        for name in folders:
            path = f"{path}/{name}" if path else name
            if path in self._made:
                continue
            if (descriptor := self._opened(path)) is not None:
                self._archive.add(path, descriptor)
                os.close(descriptor)
            self._made.add(path)

    def _opened(self, path: str) -> int | None:
        try:
            return os.open(
                self._state / path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except (FileNotFoundError, NotADirectoryError):
            return None


def _folder_of(record: Record) -> str:
    return repositories.folder(record.tenant)


def _no_ref(home: str, path: str) -> bool:
    """What is read later, or is half-made."""
    below = path.removeprefix(home)
    return below in ("/objects", "/packed-refs") or below.endswith(".lock")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir())
    except FileNotFoundError:
        return []


@contextmanager
def _resting(lock: Path) -> Iterator[bool]:
    """Keep git from changing the layers of a worktree, as a sandbox does. Writing goes on."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True  # There is none yet, or no more.
        return
    try:
        yield _shared(descriptor)
    finally:
        os.close(descriptor)


def _shared(descriptor: int) -> bool:
    until = time.monotonic() + _PATIENCE
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK)
