"""Unpacks a tar archive into an empty directory that nobody knows of yet.

Every name is opened by its parent's descriptor and no link is followed, so nothing is made anywhere
else, whatever the archive says and whoever else is at work here.
"""

import errno
import os
import stat

from agent.inside import tar

_PIECE = 64 << 10
_ENTER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_MODE = 0o755
_OWN = 0o700
"""What the owner may do with a directory, else nothing could be put there or removed."""
_OWN_FILE = 0o600
_KEPT = 0o755
"""Of the mode; what is more, as setuid or writing by others, is left out."""


class Unpacker:
    """Reads from the descriptor `source` into the directory `stage`, which stays the caller's."""

    def __init__(self, source: int, stage: int) -> None:
        self._source = source
        self._stage = stage
        self._buffer = b""
        self._near: tuple[tuple[bytes, ...], int] = ((), os.dup(stage))
        """The directory that was used last, and its path."""
        self.entries = 0
        self.bytes = 0

    def run(self) -> None:
        """Raises OSError, TarError; what was unpacked until then is in the stage."""
        reader = tar.Reader(self._exact)
        try:
            while member := reader.next():
                self._entry(member)
        finally:
            os.close(self._near[1])
        self._buffer = b""
        while os.read(self._source, _PIECE):
            pass  # What comes after the end is no part of it.

    def _entry(self, member: tar.Member) -> None:
        where = tar.parts(member.name)
        self.entries += 1
        self.bytes += member.size
        if self.entries > tar.MOST_ENTRIES or self.bytes > tar.MOST_BYTES:
            raise tar.TooMuchError("too much in one archive", member.name)
        try:
            if not where:
                if member.kind != tar.DIRECTORY:
                    raise tar.TarError("no path", member.name)
            elif member.kind == tar.DIRECTORY:
                self._directory(where, member)
            elif member.kind == tar.FILE:
                self._file(where, member)
            elif member.kind == tar.SYMLINK:
                tar.check_target(where, member.target)
                folder = self._fresh(where)
                os.symlink(member.target, where[-1], dir_fd=folder)
            else:
                self._hard_link(where, member)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.EISDIR):
                raise tar.TarError(
                    "through what is no directory, or over one", member.name
                ) from None
            error.filename = member.name
            raise

    def _directory(self, where: tuple[bytes, ...], member: tar.Member) -> None:
        mode = (member.mode & _KEPT) | _OWN
        folder = self._enter(where[:-1])
        try:
            os.mkdir(where[-1], mode, dir_fd=folder)
        except FileExistsError:
            self._enter(where)  # A directory, or it raises.

    def _file(self, where: tuple[bytes, ...], member: tar.Member) -> None:
        folder = self._fresh(where)
        descriptor = os.open(where[-1], _NEW, _OWN_FILE, dir_fd=folder)
        try:
            self._copy(descriptor, member.size)
            os.fchmod(descriptor, (member.mode & _KEPT) | _OWN_FILE)
            os.utime(descriptor, (member.mtime, member.mtime))
        finally:
            os.close(descriptor)
        self._exact(tar.padding(member.size))

    def _hard_link(self, where: tuple[bytes, ...], member: tar.Member) -> None:
        """To what came before in this archive only."""
        source = tar.parts(member.target)
        if not source or source == where:
            raise tar.TarError("a link to nothing", member.name)
        name = source[-1]
        try:
            there = os.dup(self._enter(source[:-1], make=False))
        except FileNotFoundError:
            raise tar.TarError("a link to nothing", member.name) from None
        try:
            found = os.stat(name, dir_fd=there, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise tar.TarError("a hard link to what is no file", member.name)
            folder = self._fresh(where)
            os.link(name, where[-1], src_dir_fd=there, dst_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            raise tar.TarError("a link to nothing", member.name) from None
        finally:
            os.close(there)

    def _fresh(self, where: tuple[bytes, ...]) -> int:
        """The directory for a new entry. One of that name that came before is gone then."""
        folder = self._enter(where[:-1])
        try:
            os.unlink(where[-1], dir_fd=folder)
        except FileNotFoundError:
            return folder
        return folder

    def _enter(self, where: tuple[bytes, ...], *, make: bool = True) -> int:
        """The directory there, valid until the next call."""
        if self._near[0] == where:
            return self._near[1]
        here = os.dup(self._stage)
        try:
            for name in where:
                if make:
                    _make(name, here)
                inner = os.open(name, _ENTER, dir_fd=here)
                os.close(here)
                here = inner
        except BaseException:
            os.close(here)
            raise
        os.close(self._near[1])
        self._near = (where, here)
        return here

    def _exact(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = os.read(self._source, _PIECE)
            if not data:
                raise tar.TarError("it ends too early")
            self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _copy(self, descriptor: int, size: int) -> None:
        while size:
            data = self._exact(min(size, max(1, len(self._buffer))))
            size -= len(data)
            while data:
                data = data[os.write(descriptor, data) :]


def _make(name: bytes, folder: int) -> None:
    try:
        os.mkdir(name, _FOLDER_MODE, dir_fd=folder)
    except FileExistsError:
        return
