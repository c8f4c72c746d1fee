"""Removes directories that somebody hostile has filled: however deep, and while they change.

Paths are never used, only names in open directories, and links are not followed. So depth has no
limit, and nothing outside is reached whatever is renamed meanwhile. It holds few descriptors.
"""

import errno
import os
import stat

_BATCH = 256
"""Directories of one level that are remembered to be done."""
_BATCHED = 64
"""Levels for which so many are remembered; one is in those below."""
_AGAIN = 100
"""How often it is tried again when something appears, or moves, while it works."""

_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOTEMPTY, errno.EEXIST)

Identity = tuple[int, int]
"""Device and inode of a directory."""


def remove_tree(name: bytes, parent: int, *, unlock: bool = False) -> None:
    """Remove a directory, named in the open directory `parent`, with all that is in it.

    With `unlock` it also goes where permissions forbid it to their owner. Raises OSError; what was
    not removed then is where it was.
    """
    for _ in range(_AGAIN):
        walk = _Walk(_enter(name, parent, unlock=unlock), unlock=unlock)
        try:
            walk.run()
        except _MovedError:
            continue
        finally:
            os.close(walk.here)
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno not in _FULL:
                raise
        else:
            return
    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))


class _MovedError(Exception):
    """The directory that is worked in is no longer where it was found."""


class _Level:
    """One directory on the way down."""

    def __init__(self, name: bytes, identity: Identity) -> None:
        self.name = name
        self.identity = identity
        self.todo: list[bytes] = []
        """Directories in it that are not empty."""
        self.seen = False
        """There is nothing else in it."""


class _Walk:
    """Empties a directory. `here` is the one that is worked in, at most one is open beside it."""

    def __init__(self, top: int, *, unlock: bool) -> None:
        self.here = top
        self._unlock = unlock
        self._levels = [_Level(b"", _identity(top))]
        self._left = _AGAIN

    def run(self) -> None:
        while True:
            level = self._levels[-1]
            if level.todo:
                self._down(level.todo.pop())
            elif not level.seen:
                self._look(level)
            elif len(self._levels) == 1:
                return
            else:
                self._up()

    def _look(self, level: _Level) -> None:
        """Remove what can be at once; what cannot is to be done."""
        most = _BATCH if len(self._levels) < _BATCHED else 1
        level.seen = True
        with os.scandir(self.here) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if _gone(name, self.here, directory=entry.is_dir(follow_symlinks=False)):
                    continue
                level.todo.append(name)
                if len(level.todo) == most:
                    level.seen = False
                    return

    def _down(self, name: bytes) -> None:
        try:
            there = _enter(name, self.here, unlock=self._unlock)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            return  # It is something else by now, and is found again if it is there.
        self._levels.append(_Level(name, _identity(there)))
        self._move(there)

    def _up(self) -> None:
        done = self._levels.pop()
        above = os.open("..", os.O_RDONLY | _FLAGS, dir_fd=self.here)
        self._move(above)
        level = self._levels[-1]
        if _identity(above) != level.identity:
            raise _MovedError
        if not _gone(done.name, above, directory=True):
            self._left -= 1
            if not self._left:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
            level.todo.append(done.name)

    def _move(self, descriptor: int) -> None:
        os.close(self.here)
        self.here = descriptor


def _gone(name: bytes, parent: int, *, directory: bool) -> bool:
    """Remove it; false when it is a directory with something in it, or another kind by now."""
    try:
        if directory:
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENOTDIR, *_FULL):
            return False
        raise
    return True


def _enter(name: bytes, parent: int, *, unlock: bool) -> int:
    """Open a directory, to be read."""
    if not unlock:
        return os.open(name, os.O_RDONLY | _FLAGS, dir_fd=parent)
    found = os.open(name, os.O_PATH | _FLAGS, dir_fd=parent)
    try:
        if os.fstat(found).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{found}", stat.S_IRWXU)
        return os.open(".", os.O_RDONLY | _FLAGS, dir_fd=found)
    finally:
        os.close(found)


def _identity(descriptor: int) -> Identity:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
