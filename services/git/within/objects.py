"""Objects of one repository, read through processes of git that are kept running."""

import subprocess
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha1
from typing import IO, Final, NamedTuple

TREE: Final = 0o040000
LINK: Final = 0o120000
GITLINK: Final = 0o160000
FILE: Final = 0o100644
PROGRAM: Final = 0o100755
EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

_CACHED_ENTRIES: Final = 200_000
_COMMITS: Final = 100
"""Whose trees are remembered."""


class Entry(NamedTuple):
    """One line of a tree."""

    mode: int
    id: str


Tree = Mapping[bytes, Entry]


class _Found(NamedTuple):
    id: str
    kind: bytes
    size: int
    data: bytes


class MissingObjectError(Exception):
    """An object is not there, or is not what it should be."""


def object_id(kind: bytes, data: bytes) -> str:
    """What git calls this object."""
    header = b"%s %d\0" % (kind, len(data))
    return sha1(header + data, usedforsecurity=False).hexdigest()


class Objects:
    """Reads objects. `environment` tells git where they are."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._trees: OrderedDict[str, Tree] = OrderedDict()
        self._cached = 0
        self._commits: dict[str, str] = {}

    def close(self) -> None:
        """End the processes."""
        for process in self._running.values():
            process.kill()
            process.communicate()
        self._running.clear()

    def tree_of(self, commit: str) -> str:
        """The tree of a commit. Raises `MissingObjectError`."""
        found = self._commits.get(commit)
        if found is None:
            if len(self._commits) >= _COMMITS:
                self._commits.clear()
            found = self._ask("--batch", f"{commit}^{{tree}}", b"tree").id
            self._commits[commit] = found
        return found

    def tree(self, identifier: str) -> Tree:
        """The lines of a tree by their names. Raises `MissingObjectError`."""
        found = self._trees.get(identifier)
        if found is not None:
            self._trees.move_to_end(identifier)
            return found
        if identifier == EMPTY_TREE:
            return {}
        parsed = parse_tree(self._ask("--batch", identifier, b"tree").data)
        self.know(identifier, parsed)
        return parsed

    def know(self, identifier: str, parsed: Tree) -> None:
        """Remember the lines of a tree, wherever that is."""
        if identifier in self._trees:
            return
        self._trees[identifier] = parsed
        self._cached += len(parsed)
        while self._cached > _CACHED_ENTRIES and len(self._trees) > 1:
            _, dropped = self._trees.popitem(last=False)
            self._cached -= len(dropped)

    def blob(self, identifier: str) -> bytes:
        """The content of a blob. Raises `MissingObjectError`."""
        return self._ask("--batch", identifier, b"blob").data

    def size(self, identifier: str) -> int:
        """How many bytes an object has. Raises `MissingObjectError`."""
        return self._ask("--batch-check", identifier).size

    def kind(self, identifier: str) -> bytes:
        """`blob`, `tree`, `commit` or `tag`. Raises `MissingObjectError`."""
        return self._ask("--batch-check", identifier).kind

    def _ask(self, mode: str, name: str, kind: bytes = b"") -> "_Found":
        stdin, stdout = self._process(mode)
        stdin.write(name.encode() + b"\n")
        stdin.flush()
        answer = stdout.readline().split()
        if len(answer) != 3:
            raise MissingObjectError(name)
        identifier, found, size = answer[0].decode(), answer[1], int(answer[2])
        data = b""
        if mode == "--batch":
            data = stdout.read(size + 1)[:-1]
        if kind and found != kind:
            raise MissingObjectError(name)
        return _Found(identifier, found, size, data)

    def _process(self, mode: str) -> tuple[IO[bytes], IO[bytes]]:
        process = self._running.get(mode)
        if process is None or process.poll() is not None:
            process = subprocess.Popen(
                ["git", "cat-file", mode],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._running[mode] = process
        assert process.stdin
        assert process.stdout
        return process.stdin, process.stdout


def parse_tree(data: bytes) -> dict[bytes, Entry]:
    """Read a tree as git stores it. Raises ValueError where it breaks off."""
    entries, position = dict[bytes, Entry](), 0
    while position < len(data):
        end = data.index(b"\0", position)
        mode, _, name = data[position:end].partition(b" ")
        position = end + 21
        if position > len(data):
            raise ValueError("the tree breaks off")
        entries[name] = Entry(int(mode, 8), data[end + 1 : position].hex())
    return entries


def format_tree(entries: Mapping[bytes, Entry]) -> bytes:
    """Write a tree as git stores it: directories are sorted as if a slash came after them."""

    def order(item: tuple[bytes, Entry]) -> bytes:
        return item[0] + b"/" if item[1].mode == TREE else item[0]

    return b"".join(
        b"%o %s\0" % (entry.mode, name) + bytes.fromhex(entry.id)
        for name, entry in sorted(entries.items(), key=order)
    )
