"""Writes a file or directory as a tar archive, in the order of the names, links as links."""

import errno
import os
import stat

from agent import drafts
from agent.inside import tar
from agent.inside.paths import locate

_PIECE = 64 << 10
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ChangedError(Exception):
    """A file got shorter while it was read. Holds its path."""

    def __init__(self, name: bytes) -> None:
        super().__init__("a file got shorter while it was read")
        self.name = name


class Packer:
    """Writes to the descriptor `out`."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._buffer = bytearray()
        self.entries = 0
        self.skipped = 0
        """Pipes, sockets and devices."""

    def run(self, path: bytes) -> None:
        """All below the directory `path`, with names relative to it; or the one file it is.

        What goes away meanwhile is left out. Raises OSError, OutsideError, TarError, ChangedError.
        """
        with locate(path, follow=True) as place:
            kind = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False).st_mode
            if stat.S_ISDIR(kind):
                self._walk(os.open(place.name, _FOLDER, dir_fd=place.directory))
            elif stat.S_ISREG(kind):
                self._add(place.directory, place.name, b"")
            else:
                raise OSError(errno.ENXIO, "neither a file nor a directory")
        self._write(tar.END)
        self._flush()

    def _walk(self, root: int) -> None:
        """Closes `root`. A directory comes before what is in it."""
        stack = [(root, b"", self._names(root))]
        try:
            while stack:
                folder, prefix, names = stack[-1]
                if not names:
                    os.close(stack.pop()[0])
                    continue
                name = names.pop()
                inner = self._add(folder, name, prefix)
                if inner >= 0:
                    if len(stack) >= tar.MOST_DEPTH:
                        os.close(inner)
                        raise tar.TooMuchError("too many directories", prefix + name)
                    stack.append((inner, prefix + name + b"/", self._names(inner)))
        finally:
            for folder, _, _ in stack:
                os.close(folder)

    def _names(self, folder: int) -> list[bytes]:
        """The last first."""
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if drafts.is_draft(name):
                    continue
                found.append(name)
                if len(found) + self.entries > tar.MOST_ENTRIES:
                    raise tar.TooMuchError("too many files")
        return sorted(found, reverse=True)

    def _add(self, folder: int, name: bytes, prefix: bytes) -> int:
        """Write one entry. A directory's descriptor is given back; else -1."""
        inner = -1
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                self._file(folder, name, prefix)
                return -1
            if stat.S_ISDIR(found.st_mode):
                inner = os.open(name, _FOLDER, dir_fd=folder)
                kind, target = tar.DIRECTORY, b""
            elif stat.S_ISLNK(found.st_mode):
                kind, target = tar.SYMLINK, os.readlink(name, dir_fd=folder)
            else:
                self.skipped += 1
                return -1
        except FileNotFoundError:
            return -1
        except OSError as error:
            error.filename = prefix + name
            raise
        self._begin(prefix + name, kind, found, target)
        return inner

    def _begin(self, name: bytes, kind: bytes, found: os.stat_result, target: bytes = b"") -> None:
        self.entries += 1
        mode = stat.S_IMODE(found.st_mode) & 0o777
        member = tar.Member(name, kind, found.st_size, mode, int(found.st_mtime))
        member.target = target
        self._write(tar.header(member))

    def _file(self, folder: int, name: bytes, prefix: bytes) -> None:
        descriptor = os.open(name, _READ, dir_fd=folder)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "replaced meanwhile")
            self._begin(prefix + name, tar.FILE, found)
            left = found.st_size
            while left:
                data = os.read(descriptor, min(left, _PIECE))
                if not data:
                    raise ChangedError(prefix + name)
                self._write(data)
                left -= len(data)
            self._write(bytes(tar.padding(found.st_size)))
        finally:
            os.close(descriptor)

    def _write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        with memoryview(bytes(self._buffer)) as rest:
            sent = 0
            while sent < len(rest):
                sent += os.write(self._out, rest[sent:])
        self._buffer.clear()
