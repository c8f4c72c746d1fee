"""Tells what changes below a directory, with a bounded number of watches.

Nothing is kept for a reader who is slow: the kernel's queue runs over then, which is told.
"""

import errno
import os
import select
import struct

from agent import drafts, frames
from agent.inside import system
from agent.inside.paths import locate

MOST = 32_768
"""Directories that are watched at once."""

_EVENT = struct.Struct("iIII")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BATCH = 24 << 10
_DEEPEST = 4096
_MODIFY, _ATTRIB, _CLOSED = 0x2, 0x4, 0x8
_FROM, _TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
_ISDIR = 0x40000000
_MASK = _MODIFY | _ATTRIB | _FROM | _TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_ONLY_DIRECTORIES = 0x01000000


class TooManyError(Exception):
    """More directories than can be watched, here or for this user."""


class _Gone(Exception):
    """What was watched is not there any more."""


class _LostError(Exception):
    """Where a directory is, is not known any more."""


class _Node:
    """A directory that is watched."""

    def __init__(self, watch: int, name: bytes, above: "_Node | None") -> None:
        self.watch = watch
        self.name = name
        self.above = above
        self.below: dict[bytes, _Node] = {}

    def path(self) -> list[bytes]:
        names = []
        node = self
        while node.above:
            names.append(node.name)
            node = node.above
            if len(names) > _DEEPEST:
                raise _LostError
        return names[::-1]


class Watch:
    """Writes packets of changes to `control`, until that is closed or the directory is gone."""

    def __init__(self, control: int) -> None:
        self._control = control
        self._queue = -1
        self._root = -1
        self._above = -1
        self._name = b""
        self._nodes: dict[int, _Node] = {}
        self._top = _Node(-1, b"", None)
        self._changes: list[tuple[int, int, bytes, bytes]] = []

    def run(self, path: bytes) -> None:
        """Raises OSError, OutsideError, TooManyError."""
        self._queue = system.inotify()
        if self._queue < 0:
            raise TooManyError("this user has too many queues of inotify")
        with locate(path, follow=True) as place:
            self._root = os.open(place.name, _FOLDER, dir_fd=place.directory)
            if place.name != b".":  # As we hold it open, it is told above that it is removed.
                self._above = self._add(place.directory, _FROM | _DELETE)
                self._name = place.name
        self._top.watch = self._add(self._root)
        self._nodes[self._top.watch] = self._top
        self._scan(self._top, tell=False)
        self._send()  # An empty packet: from now on all is told.
        poll = select.poll()
        poll.register(self._queue, select.POLLIN)
        poll.register(self._control, 0)
        try:
            while True:
                if any(descriptor == self._control for descriptor, _ in poll.poll()):
                    raise BrokenPipeError
                self._read()
                if self._changes:
                    self._send()
        except _Gone:
            self._tell(frames.GONE, 1, b"", b"")
            self._send()

    def _read(self) -> None:
        """All that is there now; what belongs together comes in one piece."""
        data = os.read(self._queue, 64 << 10)
        at = 0
        moved: dict[int, tuple[_Node, bytes, int]] = {}
        while at < len(data):
            watch, mask, cookie, size = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = data[at : at + size].split(b"\0", 1)[0]
            at += size
            if mask & _OVERFLOW:
                self._rescan()
                continue
            if watch == self._above and name == self._name:
                raise _Gone
            node = self._nodes.get(watch)
            if node is None:
                continue
            if mask & (_DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED):
                if node is self._top:
                    raise _Gone
                continue
            if drafts.is_draft(name):
                continue
            try:
                self._take(node, mask, cookie, name, moved)
            except _LostError:
                self._rescan()
        for node, name, directory in moved.values():  # It left what is watched.
            try:
                self._tell(frames.REMOVED, directory, _join(node, name), b"")
            except _LostError:
                self._rescan()
            self._forget(node, name)

    def _take(
        self,
        node: _Node,
        mask: int,
        cookie: int,
        name: bytes,
        moved: dict[int, tuple[_Node, bytes, int]],
    ) -> None:
        directory = int(bool(mask & _ISDIR))
        path = _join(node, name)
        if mask & _FROM:
            moved[cookie] = (node, name, directory)
        elif mask & _TO and cookie in moved:
            before, old, _ = moved.pop(cookie)
            self._tell(frames.MOVED, directory, path, _join(before, old))
            self._forget(node, name)
            if child := before.below.pop(old, None):
                child.name, child.above = name, node
                node.below[name] = child
            elif directory:
                self._enter(node, name)
        elif mask & (_CREATE | _TO):
            self._tell(frames.CREATED, directory, path, b"")
            self._forget(node, name)
            if directory:
                self._enter(node, name)
        elif mask & _DELETE:
            self._forget(node, name)
            self._tell(frames.REMOVED, directory, path, b"")
        elif name:  # Of the directory itself it is told in the one above.
            self._tell(frames.MODIFIED, directory, path, b"")

    def _enter(self, above: _Node, name: bytes) -> None:
        """Watch a new directory, and tell what came into it before it was watched."""
        if child := self._child(above, name):
            self._scan(child, tell=True)

    def _child(self, above: _Node, name: bytes) -> _Node | None:
        """None when it is gone, or no directory."""
        try:
            folder = self._open([*above.path(), name])
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            return None
        try:
            watch = self._add(folder)
        finally:
            os.close(folder)
        known = self._nodes.get(watch)
        if known and known.above:  # It was moved, and that is told later.
            known.above.below.pop(known.name, None)
        child = known or _Node(watch, name, above)
        child.name, child.above = name, above
        above.below[name] = self._nodes[watch] = child
        if len(self._nodes) > MOST:
            raise TooManyError("too many directories")
        return child

    def _scan(self, top: _Node, *, tell: bool) -> None:
        todo = [top]
        while todo:
            node = todo.pop()
            for name, directory in self._entries(node):
                if tell:
                    self._tell(frames.CREATED, directory, _join(node, name), b"")
                if directory and (child := self._child(node, name)):
                    todo.append(child)

    def _entries(self, node: _Node) -> list[tuple[bytes, int]]:
        """Directories, and what else there is where that is to be told."""
        try:
            folder = self._open(node.path())
        except OSError:
            return []
        try:
            with os.scandir(folder) as entries:
                return [
                    (os.fsencode(each.name), int(each.is_dir(follow_symlinks=False)))
                    for each in entries
                    if not drafts.is_draft(os.fsencode(each.name))
                ]
        finally:
            os.close(folder)

    def _open(self, names: list[bytes]) -> int:
        here = os.dup(self._root)
        for name in names:
            above = here
            try:
                here = os.open(name, _FOLDER, dir_fd=above)
            finally:
                os.close(above)
        return here

    def _rescan(self) -> None:
        """Events were lost: say so, and watch what is there now."""
        self._tell(frames.OVERFLOW, 0, b"", b"")
        before = self._nodes
        self._top.below.clear()
        self._nodes = {self._top.watch: self._top}
        self._scan(self._top, tell=False)
        for watch in before.keys() - self._nodes.keys():
            system.inotify_remove(self._queue, watch)

    def _add(self, folder: int, mask: int = _MASK) -> int:
        os.fchdir(folder)
        watch = system.inotify_add(self._queue, b".", mask | _ONLY_DIRECTORIES)
        if watch < 0:
            if -watch == errno.ENOSPC:
                raise TooManyError("this user watches too many directories")
            raise OSError(-watch, os.strerror(-watch))
        return watch

    def _forget(self, above: _Node, name: bytes) -> None:
        """A directory that is no more there, with all below it."""
        gone = above.below.pop(name, None)
        todo = [gone] if gone else []
        while todo:
            node = todo.pop()
            todo += node.below.values()
            self._nodes.pop(node.watch, None)
            system.inotify_remove(self._queue, node.watch)

    def _tell(self, kind: int, directory: int, path: bytes, before: bytes) -> None:
        change = (kind, directory, path, before)
        if not self._changes or self._changes[-1] != change:
            self._changes.append(change)
        if len(self._changes) >= 64:
            self._send()

    def _send(self) -> None:
        """Waits for a reader who is slow."""
        changes, self._changes = self._changes, []
        packet: list[bytes | int] = [frames.CHANGES]
        size = 0
        for change in changes:
            weight = 64 + len(change[2]) + len(change[3])
            if size + weight > _BATCH and len(packet) > 1:
                os.write(self._control, frames.pack(*packet))
                packet, size = [frames.CHANGES], 0
            packet += change
            size += weight
        os.write(self._control, frames.pack(*packet))


def _join(node: _Node, name: bytes) -> bytes:
    return b"/".join([*node.path(), name])
