"""Judges small packs without a process of git: what is certainly sound, and nothing else.

`check` asks of every new tree what git's fsck asks, and that all it names is there. Whatever is
not plainly in order, or only looks as if git might mind it, is in doubt: git has to judge it.
What a new tree has in common with the one that it comes after has been judged before.
"""

import re
import zlib
from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha1
from typing import Final, NamedTuple

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

MAX_BYTES: Final = 256 << 10
"""Of all objects of a pack."""
MAX_OBJECTS: Final = 200
_MAX_DEPTH: Final = 100
_KINDS: Final = {2: b"tree", 3: b"blob"}
_PACK: Final = b"PACK\0\0\0\2"
_HEAD: Final = 12
_TAIL: Final = 20
_ITEM: Final = re.compile(rb"[\x80-\xff]{0,4}[\x00-\x7f]")
"""Kind and size: seven bits a byte, of which all but the last have the eighth set."""
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


class Item(NamedTuple):
    """An object of a pack."""

    kind: bytes
    data: bytes


def read(text: str) -> dict[str, Item]:
    """The trees and blobs of a pack in base64 by their ids, all whole. Raises `DoubtfulError`."""
    try:
        pack = b64decode(text, validate=True)
    except ValueError:
        raise DoubtfulError("no base64") from None
    head, body, digest = pack[:_HEAD], pack[_HEAD:-_TAIL], pack[-_TAIL:]
    if head[:8] != _PACK or sha1(head + body, usedforsecurity=False).digest() != digest:
        raise DoubtfulError("no whole pack")
    count = int.from_bytes(head[8:], "big")
    items, room = dict[str, Item](), MAX_BYTES
    for _ in range(min(count, MAX_OBJECTS)):
        item, body = _item(body, room)
        room -= len(item.data)
        items[object_id(item.kind, item.data)] = item
    if body or len(items) != count:
        raise DoubtfulError("more, or fewer, objects than the pack says")
    return items


def _item(body: bytes, room: int) -> tuple[Item, bytes]:
    """The first object, and what comes after it."""
    head = _ITEM.match(body)
    if head is None or (kind := _KINDS.get(head[0][0] >> 4 & 7)) is None:
        raise DoubtfulError("an object of another kind")
    first, *more = head[0]
    size = first & 15
    for number, byte in enumerate(more):
        size |= (byte & 0x7F) << (4 + 7 * number)
    if size > room:
        raise DoubtfulError("too much")
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(body[head.end() :], size + 1)
    except zlib.error:
        raise DoubtfulError("an object is damaged") from None
    if not inflate.eof or len(data) != size:
        raise DoubtfulError("an object has another size")
    return Item(kind, data), inflate.unused_data


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
        was: Tree = self._objects.tree(former)
        for name, entry in entries.items():
            before = was.get(name)
            if entry == before:
                continue
            if name in (b"", b".", b"..") or _DOUBTFUL.search(name) or entry.id == _NOBODY:
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
            found = self._objects.kind(identifier)
        else:
            found = item.kind
            self.reached.add(identifier)
        if found != kind:
            raise DoubtfulError("an object of another kind")
        return item


def _parsed(data: bytes) -> Mapping[bytes, Entry]:
    """A tree whose lines are in order, each name once, and written as git writes them."""
    try:
        entries = parse_tree(data)
    except ValueError:
        entries = {}
    if format_tree(entries) != data:
        raise DoubtfulError("a tree that is not as git writes it")
    return entries
