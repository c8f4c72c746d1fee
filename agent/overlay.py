"""Overlays: some read-only trees and a writable one on top, mounted in a namespace of one's own.

Stands alone: `python -I -S overlay.py probe DIR` prints why none can be had below DIR, or nothing.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

TRUSTED: Final = "trusted"
"""The upper layer's marks are in trusted.overlay.*: mounted by root."""
USER: Final = "user"
"""They are in user.overlay.*: mounted by an ordinary user, in a user namespace."""

MOST_LOWERS: Final = 64

_OPTIONS: Final = {
    TRUSTED: "redirect_dir=on,metacopy=off,index=off,xino=auto",
    USER: "userxattr,index=off,xino=off",
}
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_LONGEST_OPTIONS: Final = 4095
"""Bytes: the kernel takes a page."""
_PATIENCE: Final = 10
"""Seconds for a probe."""

_libc = ctypes.CDLL(None, use_errno=True)


def own_xattrs() -> str:
    """The marks that an overlay of this process has."""
    return TRUSTED if os.geteuid() == 0 else USER


def enter_namespace() -> None:
    """Move this process, of one thread, into a mount namespace that nothing leads out of.

    An ordinary user becomes able to mount there. No user or group changes. Raises OSError.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        _unshare(_CLONE_NEWNS)
    else:
        _unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    attach("none", "/", flags=_MS_REC | _MS_PRIVATE)


def bind(source: str, target: str) -> None:
    """Show `source`, and what is mounted below it, at `target` too. Raises OSError."""
    attach(source, target, flags=_MS_BIND | _MS_REC)


def attach(
    source: str, target: str, kind: str = "", flags: int = _MS_NOSUID | _MS_NODEV, options: str = ""
) -> None:
    """mount(2). Raises OSError that names `target`."""
    words = (source, target, kind)
    encoded = [os.fsencode(word) for word in words]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(options)) != 0:
        raise _failed(f"mount {kind}{' ' if kind else ''}at {target}")


def options(lowers: Sequence[str], upper: str, work: str, xattrs: str) -> str:
    """Of a mount of these paths, in which there is no comma and no colon. Raises OSError."""
    made = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work},{_OPTIONS[xattrs]}"
    if len(os.fsencode(made)) > _LONGEST_OPTIONS:
        raise OSError("the paths of the layers are too long together for the kernel")
    return made


def open_work(work: str) -> None:
    """Open the kernel's own directory in that of a mount to its owner: it is closed to everybody,
    as would be whoever copies or removes the worktree."""
    with contextlib.suppress(OSError):
        os.chmod(f"{work}/work", 0o700)


class Layers:
    """The directories of an overlay, opened. None of them may be a symlink.

    What they are mounted in must be the namespace that they were opened in. Raises OSError,
    ValueError for too many.
    """

    def __init__(self, lowers: Sequence[str], upper: str, work: str) -> None:
        if not 1 <= len(lowers) <= MOST_LOWERS:
            raise ValueError(f"an overlay has 1 to {MOST_LOWERS} lower layers")
        self._opened: list[int] = []
        try:
            for path in (upper, work, *lowers):
                self._opened.append(_directory(path))
        except OSError:
            self.close()
            raise

    def mount(self, target: str, xattrs: str) -> None:
        """Mount them at `target`, without set-uid programs and devices. Raises OSError.

        Descriptors are shorter than paths, and have no colon.
        """
        upper, work, *lowers = (f"/proc/self/fd/{number}" for number in self._opened)
        attach("overlay", target, "overlay", options=options(lowers, upper, work, xattrs))
        if os.statvfs(target).f_flag & os.ST_RDONLY:
            raise OSError(f"mount overlay at {target}: the kernel made it read-only")
        open_work(work)

    def close(self) -> None:
        for number in self._opened:
            os.close(number)
        self._opened.clear()


def mount(lowers: Sequence[str], upper: str, work: str, target: str, xattrs: str) -> None:
    """Mount an overlay at `target`, the topmost of `lowers` first. Raises OSError, ValueError."""
    layers = Layers(lowers, upper, work)
    try:
        layers.mount(target, xattrs)
    finally:
        layers.close()


def probe(directory: Path) -> str:
    """Why no overlay can have its layers below `directory`; empty when one can.

    One is really mounted and written to, in a child. Everything else here stays as it is.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=".overlay-", dir=directory))
    except OSError as error:
        return str(error)
    try:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _tell(folder, writing)
        os.close(writing)
        with open(reading, "rb") as said:
            cause = said.read().decode(errors="replace")
        _, status = os.waitpid(pid, 0)
        return cause or ("" if status == 0 else f"the probe was killed by signal {status & 0x7F}")
    except OSError as error:
        return str(error)
    finally:
        _remove(folder)


def _tell(folder: Path, writing: int) -> None:
    """Try, in a child that ends with it."""
    try:
        signal.alarm(_PATIENCE)
        _try(folder, own_xattrs())
    except BaseException as error:  # Whatever it is, the child must not go on as its parent.
        os.write(writing, f"{type(error).__name__}: {error}".encode()[:1000])
        os._exit(1)
    finally:
        os._exit(0)


def _try(folder: Path, xattrs: str) -> None:
    lower, upper, work, target = (folder / name for name in ("lower", "upper", "work", "target"))
    for each in (lower, upper, work, target, lower / "emptied", lower / "moved"):
        each.mkdir()
    for file in (lower / "file", lower / "emptied" / "file", lower / "moved" / "file"):
        file.write_text("lower")
    enter_namespace()
    mount([str(lower)], str(upper), str(work), str(target), xattrs)
    (target / "new").write_text("upper")
    (target / "file").unlink()
    shutil.rmtree(target / "emptied")
    (target / "emptied").mkdir()
    if xattrs == TRUSTED:
        (target / "moved").rename(target / "there")
        _demand((target / "there" / "file").read_text() == "lower", "a moved directory is empty")
    _demand((upper / "new").read_text() == "upper", "a new file is not in the upper layer")
    removed = (upper / "file").lstat()
    whiteout = stat.S_ISCHR(removed.st_mode) and removed.st_rdev == 0
    _demand(whiteout, "a removed file leaves no whiteout")
    mark = os.getxattr(upper / "emptied", f"{xattrs}.overlay.opaque")
    _demand(mark == b"y", "a directory made anew is not marked")
    _demand(os.listdir(target / "emptied") == [], "a directory made anew is not empty")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise OSError(otherwise)


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        (folder / "work" / "work").chmod(0o700)  # The kernel's own, closed to everybody.
    shutil.rmtree(folder, ignore_errors=True)


def _directory(path: str) -> int:
    """Open a directory that is no symlink, and name it in what goes wrong."""
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise OSError(error.errno, "not a directory, or a symlink", path) from error


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        raise _failed("unshare: a namespace of its own was refused")


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def main() -> int:
    """`probe DIR`."""
    _, verb, directory = sys.argv
    if verb != "probe":
        return 2
    cause = probe(Path(directory))
    print(cause, end="\n" if cause else "")  # noqa: T201
    return 1 if cause else 0


if __name__ == "__main__":
    sys.exit(main())
