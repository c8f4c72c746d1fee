"""What the agent does to files on request, in the three folders only."""

import errno
import os
import stat

from agent import frames, removal
from agent.inside import system
from agent.inside.paths import locate

_FLAGS = (
    os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_DIRECTORY | os.O_PATH
)
_ALWAYS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


KINDS = (frames.OPEN, frames.MAKE_DIRECTORY, frames.RENAME)


def answer(kind: int, fields: list[bytes]) -> int:
    """Do one of KINDS; gives a descriptor for the client, or -1. Raises OSError, OutsideError."""
    if kind == frames.OPEN:
        path, flags, mode, follow = fields
        return open_file(path, int(flags), int(mode), follow=follow != b"0")
    if kind == frames.MAKE_DIRECTORY:
        path, mode, parents = fields
        make_directory(path, int(mode), parents=parents != b"0")
    else:
        source, target, replace = fields
        rename(source, target, replace=replace != b"0")
    return -1


def open_file(path: bytes, flags: int, mode: int, *, follow: bool) -> int:
    """A descriptor of a regular file or a directory; with O_PATH of anything. Raises OSError."""
    if flags & ~_FLAGS:
        raise OSError(errno.EINVAL, "flags that are not allowed")
    with locate(path, follow=follow) as place:
        descriptor = os.open(place.name, flags | _ALWAYS, mode & 0o777, dir_fd=place.directory)
    kind = os.fstat(descriptor).st_mode
    if not (flags & os.O_PATH or stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "neither a file nor a directory")
    return descriptor


def make_directory(path: bytes, mode: int, *, parents: bool) -> None:
    """With `parents` an existing directory is no error. Raises OSError."""
    parts = path.split(b"/")
    start = 1 if parents else len(parts)
    for count in range(start, len(parts) + 1):
        part = b"/".join(parts[:count])
        if not part.strip(b"/"):
            continue
        try:
            _make(part, mode)
        except FileExistsError:
            if not parents:
                raise
    if parents:
        os.close(open_file(path, os.O_PATH | os.O_DIRECTORY, 0, follow=True))


def _make(path: bytes, mode: int) -> None:
    if path in (b"/home",):  # On the way to a root; not to be made or judged.
        raise FileExistsError
    with locate(path, follow=True) as place:
        os.mkdir(place.name, mode & 0o777, dir_fd=place.directory)


def removing(path: bytes, *, recursive: bool) -> int:
    """Remove what is there: 0, or the pid of a child of ours that is at it. Raises OSError."""
    if remove(path):
        return 0
    if not recursive:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    pid = os.fork()
    if pid:
        return pid
    try:
        system.close_from(3)  # Else no command would read the end of its input meanwhile.
        if system.can_separate():
            system.separate()
        remove_tree(path)
        os._exit(0)
    except OSError as error:
        os._exit(error.errno or errno.EIO)
    finally:
        os._exit(errno.EIO)


def remove(path: bytes) -> bool:
    """Remove a file, a link, or an empty directory; false when the directory is not empty."""
    with locate(path, follow=False) as place:
        _refuse_root(place.name)
        kind = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(kind):
            os.unlink(place.name, dir_fd=place.directory)
            return True
        try:
            os.rmdir(place.name, dir_fd=place.directory)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                return False
            raise
        return True


def remove_tree(path: bytes) -> None:
    """Remove a directory with all in it. May take long: call it in a process of its own."""
    with locate(path, follow=False) as place:
        _refuse_root(place.name)
        removal.remove_tree(place.name, place.directory)


def rename(source: bytes, target: bytes, *, replace: bool) -> None:
    """Raises OSError, among them EXDEV between file systems."""
    with locate(source, follow=False) as old, locate(target, follow=False) as new:
        _refuse_root(old.name)
        _refuse_root(new.name)
        if replace:
            os.rename(old.name, new.name, src_dir_fd=old.directory, dst_dir_fd=new.directory)
        else:
            system.rename_exclusive(old.name, old.directory, new.name, new.directory)


def _refuse_root(name: bytes) -> None:
    if name == b".":
        raise OSError(errno.EBUSY, "a root cannot be moved or removed")
