"""Judges a few new objects without a process of git: what is certainly sound, and nothing else.

`check` asks of every new tree what git's fsck asks, and that all it names is there. Whatever is
not plainly in order, or only looks as if git might mind it, is in doubt: git has to judge it.
What a new tree has in common with the one that it comes after is as it was before.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from services.git.within import wire
from services.git.within.frames import WireError
from services.git.within.objects import (
    EMPTY_TREE,
    FILE,
    GITLINK,
    LINK,
    PROGRAM,
    TREE,
    Entry,
    MissingObjectError,
    Objects,
    Tree,
    format_tree,
    object_id,
    parse_tree,
)
from services.git.within.pack import Item

MAX_BYTES: Final = 256 << 10
"""Of all that is new."""
MAX_OBJECTS: Final = 200
_MAX_DEPTH: Final = 100
_MAX_NAME: Final = 255
_MAX_LINES: Final = 20_000
"""Of all trees that are looked at: git takes as long as they are, whatever they name."""
_KINDS: Final = {kind.decode(): kind for kind in (b"tree", b"blob")}
_NOBODY: Final = "0" * 40
# Names that mean something to git, or that a file system might take for one of those: by short
# names, streams, or letters that HFS+ ignores.
_DOUBTFUL: Final = re.compile(rb"(?i)git|[~\\/:\0]|\xe2\x80|\xe2\x81|\xef\xbb")
_COMMIT: Final = re.compile(
    rb"tree ([0-9a-f]{40})\n(?:parent [0-9a-f]{40}\n)?"
    rb"author [^<>\n\0]* <[^<>\n\0]*> \d{1,12} \+0000\n"
    rb"committer [^<>\n\0]* <[^<>\n\0]*> \d{1,12} \+0000\n\n[^\0]*"
)


class DoubtfulError(Exception):
    """Git has to judge."""


def read(told: Any) -> dict[str, Item]:
    """Trees and blobs by their ids, from kind and content of each. Raises `DoubtfulError`."""
    if not isinstance(told, list) or len(told) > MAX_OBJECTS:
        raise DoubtfulError("not a few objects")
    items, room = dict[str, Item](), MAX_BYTES
    for one in told:
        try:
            kind, text = one
            item = Item(_KINDS[kind], wire.as_bytes(text))
        except (KeyError, TypeError, ValueError, WireError):
            raise DoubtfulError("no tree and no blob") from None
        room -= len(item.data)
        if room < 0:
            raise DoubtfulError("too much")
        items[object_id(*item)] = item
    return items


def check(items: Mapping[str, Item], commit: bytes, objects: Objects, old: str) -> None:
    """Whether `commit` and the trees and blobs of it that are new are sound, and all is there.

    `old` is the commit it comes after, or empty. Raises `DoubtfulError`.
    """
    found = _COMMIT.fullmatch(commit)
    if found is None:
        raise DoubtfulError("a commit that may not be sound")
    try:
        former = objects.tree_of(old) if old else EMPTY_TREE
        checked = _Check(items, objects)
        checked.tree(found[1].decode(), former, 0)
    except MissingObjectError as error:
        raise DoubtfulError(f"{error} is not there") from None
    if len(checked.reached) != len(items):
        raise DoubtfulError("objects that nothing names")


class _Check:
    def __init__(self, items: Mapping[str, Item], objects: Objects) -> None:
        self.reached: set[str] = set()
        self._items = items
        self._objects = objects
        self._done: set[tuple[str, str]] = set()
        self._lines = 0
        self._kinds: dict[str, bytes] = {}

    def tree(self, identifier: str, former: str, depth: int) -> None:
        """Check a tree that has come where `former` was."""
        if identifier == former or (identifier, former) in self._done:
            return
        self._done.add((identifier, former))
        item = self._has(identifier, b"tree")
        if item is None:
            return
        if depth > _MAX_DEPTH:
            raise DoubtfulError("directories that are very deep")
        entries = _parsed(item.data)
        self._objects.know(identifier, entries)  # The next commit comes after it.
        self._lines += len(entries)
        if self._lines > _MAX_LINES:
            raise DoubtfulError("very many lines")
        was: Tree = self._objects.tree(former)
        for name, entry in entries.items():
            before = was.get(name)
            if entry == before:
                continue
            if entry.id == _NOBODY or not _is_plain(name):
                raise DoubtfulError("a name that git may not take")
            if entry.mode == TREE:
                comes_after = before is not None and before.mode == TREE
                self.tree(entry.id, before.id if before and comes_after else EMPTY_TREE, depth + 1)
            elif entry.mode in (FILE, PROGRAM, LINK):
                self._has(entry.id, b"blob")
            elif entry.mode != GITLINK:
                raise DoubtfulError("a mode that git may not take")

    def _has(self, identifier: str, kind: bytes) -> Item | None:
        """It is new, or in the repository: then None."""
        item = self._items.get(identifier)
        if item is None:
            found = self._kinds.get(identifier) or self._objects.kind(identifier)
            self._kinds[identifier] = found
        else:
            found = item.kind
            self.reached.add(identifier)
        if found != kind:
            raise DoubtfulError("an object of another kind")
        return item


def _is_plain(name: bytes) -> bool:
    """Whether nobody can take it for anything but a name."""
    if not name or len(name) > _MAX_NAME or name in (b".", b".."):
        return False
    return _DOUBTFUL.search(name) is None


def _parsed(data: bytes) -> Mapping[bytes, Entry]:
    """A tree whose lines are in order, each name once, and written as git writes them."""
    try:
        entries = parse_tree(data)
    except ValueError:
        entries = {}
    if format_tree(entries) != data:
        raise DoubtfulError("a tree that is not as git writes it")
    return entries
