"""What differs between a worktree and a commit, without an index and without walking the tree.

The worktree is the base commit and the world laid over it. Where the world says nothing and base
and head agree, nothing differs, whatever is below.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from agent import drafts
from services.git.within.files import Files, UnreadableError
from services.git.within.ignores import MAX_BYTES, NAME, Ignores
from services.git.within.layers import Directory, Gone, Leaf
from services.git.within.objects import GITLINK, LINK, TREE, Entry, Objects

ADDED: Final = "?"
MODIFIED: Final = "M"
DELETED: Final = "D"
RETYPED: Final = "T"
RENAMED: Final = "R"

_GIT: Final = b".git"
_REPOSITORY: Final = (b"HEAD", b"objects", b"refs")
_HASHED: Final = 8 << 20
"""Larger files are compared by their size first."""

_Override = Directory | Leaf | Gone


class Change(NamedTuple):
    """A path that differs. `new` without a leaf is an object of the base commit."""

    path: bytes
    state: str
    old: Entry | None = None
    new: Entry | None = None
    leaf: Leaf | None = None
    submodule: bool = False


class _Frame(NamedTuple):
    """A directory that is being looked at, `prefix` with a slash at its end."""

    prefix: bytes
    overrides: Mapping[bytes, _Override]
    base: str | None


class Comparison:
    """Finds what differs between the world over `base` and `head`, which are trees."""

    def __init__(
        self, objects: Objects, files: Files, ignores: Ignores, base: str | None, head: str | None
    ) -> None:
        self._objects = objects
        self._files = files
        self._ignores = ignores
        self._base = base
        self._head = head
        # Recursion that yields would need a stack of the kernel's as deep as the directories.
        self._found: list[Change] = []
        self._learnt: set[bytes] = set()
        self._frames: list[_Frame] = []
        self._new: list[tuple[tuple[_Frame, ...], Change]] = []

    def run(self, world: Directory) -> list[Change]:
        """All changes, in the order of their paths. Raises `MissingObjectError`."""
        base = self._base if world.base is not None else None
        self._walk(b"", world.children, base, self._head)
        return sorted(self._found + self._not_excluded(), key=lambda change: change.path)

    def _walk(
        self,
        prefix: bytes,
        overrides: Mapping[bytes, _Override],
        base: str | None,
        head: str | None,
    ) -> None:
        if not overrides and base == head:
            return
        shown = self._objects.tree(base) if base else {}
        wanted = shown if base == head else self._objects.tree(head) if head else {}
        names = set(overrides)
        if base != head:
            names |= shown.keys() | wanted.keys()
        names.discard(_GIT)
        names -= {name for name in names if drafts.is_draft(name)} - wanted.keys()
        self._frames.append(_Frame(prefix, overrides, base))
        for name in names:
            work = overrides.get(name) or shown.get(name)
            self._compare(prefix + name, work, wanted.get(name))
        self._frames.pop()

    def _compare(self, path: bytes, work: _Override | Entry | None, head: Entry | None) -> None:
        if isinstance(work, Gone):
            work = None
        if work == head or (isinstance(work, Leaf) and work.kind == "u"):
            return
        if isinstance(work, Directory) or (
            isinstance(work, Entry) and work.mode in (TREE, GITLINK)
        ):
            # Whatever is in another repository is that one's.
            if head is None or head.mode != GITLINK:
                self._compare_directory(path, work, head)
            return
        if head is not None and head.mode == TREE:
            self._walk(path + b"/", {}, None, head.id)
            head = None
        if work is None:
            if head is not None:
                self._found.append(Change(path, DELETED, head, submodule=head.mode == GITLINK))
        elif head is None:
            self._add(path, work)
        else:
            self._compare_file(path, work, head)

    def _compare_directory(self, path: bytes, work: Directory | Entry, head: Entry | None) -> None:
        overrides: Mapping[bytes, _Override] = {}
        base = None
        if isinstance(work, Directory):
            overrides, base = work.children, self._shown(work.base)
        elif work.mode == TREE:
            base = work.id
        if head is not None and head.mode == TREE:
            self._walk(path + b"/", overrides, base, head.id)
            return
        if head is not None:
            self._found.append(Change(path, DELETED, head))
        if self._is_repository(overrides):
            self._new.append((self._above(), Change(path + b"/", ADDED, submodule=True)))
        elif not self._is_excluded(path + b"/"):
            self._walk(path + b"/", overrides, base, None)

    def _shown(self, base: tuple[bytes, ...] | None) -> str | None:
        """The tree of the base commit that shows through, if there is one at that path."""
        if base is None or self._base is None:
            return None
        found = self._base
        for name in base:
            entry = self._objects.tree(found).get(name)
            if entry is None or entry.mode != TREE:
                return None
            found = entry.id
        return found

    def _is_repository(self, overrides: Mapping[bytes, _Override]) -> bool:
        found = overrides.get(_GIT)
        if isinstance(found, Directory):
            return all(
                isinstance(found.children.get(name), Directory | Leaf) for name in _REPOSITORY
            )
        if isinstance(found, Leaf):
            return (self._files.text(found, 8192) or b"").startswith(b"gitdir: ")
        return False

    def _compare_file(self, path: bytes, work: Leaf | Entry, head: Entry) -> None:
        if isinstance(work, Entry):
            self._found.append(Change(path, _state(work.mode, head.mode), head, work))
            return
        if work.kind == "s":
            self._found.append(Change(path, RETYPED, head, None, work))
            return
        mode = self._files.mode(work)
        state = _state(mode, head.mode)
        if state == MODIFIED and mode == head.mode and self._is_same(work, head):
            return
        self._found.append(Change(path, state, head, None, work, submodule=head.mode == GITLINK))

    def _is_same(self, work: Leaf, head: Entry) -> bool:
        if work.size > _HASHED and self._objects.size(head.id) != work.size:
            return False
        try:
            return self._files.blob(work).id == head.id
        except UnreadableError:
            return False

    def _add(self, path: bytes, work: Leaf | Entry) -> None:
        """Note what is not tracked; what git does not see is left out."""
        if isinstance(work, Entry):
            self._new.append((self._above(), Change(path, ADDED, None, work)))
        elif work.kind != "s":
            self._new.append((self._above(), Change(path, ADDED, None, None, work)))

    def _above(self) -> tuple[_Frame, ...]:
        return tuple(self._frames)

    def _is_excluded(self, directory: bytes) -> bool:
        self._learn(self._above())
        return self._ignores.excluded_directory(directory)

    def _not_excluded(self) -> list[Change]:
        for frames, _ in self._new:
            self._learn(frames)
        paths = [change.path.rstrip(b"/") for _, change in self._new]
        excluded = self._ignores.excluded(paths)
        return [change for _, change in self._new if change.path.rstrip(b"/") not in excluded]

    def _learn(self, frames: tuple[_Frame, ...]) -> None:
        """Have the .gitignore of each of these directories."""
        for frame in reversed(frames):
            if frame.prefix in self._learnt:
                return  # And so of all above it.
            self._learnt.add(frame.prefix)
            found = frame.overrides.get(NAME)
            content: bytes | None = None
            if isinstance(found, Leaf):
                content = self._files.text(found, MAX_BYTES)
            elif found is None and frame.base is not None:
                entry = self._objects.tree(frame.base).get(NAME)
                if (
                    entry is not None
                    and entry.mode not in (TREE, LINK, GITLINK)
                    and self._objects.size(entry.id) <= MAX_BYTES
                ):
                    content = self._objects.blob(entry.id)
            self._ignores.have(frame.prefix, content or b"")


def _state(new: int, old: int) -> str:
    return MODIFIED if new & 0o170000 == old & 0o170000 else RETYPED
