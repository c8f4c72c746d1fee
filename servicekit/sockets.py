"""Where a server listens: unix sockets that only their owner can reach, and TCP."""

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

_UNIX: Final = "unix:"


class AddressError(OSError):
    """The address cannot be listened on. The message says why."""


def listen(address: str, bind: Callable[[str], int]) -> str:
    """Have `bind` listen on `address`, and return what to dial."""
    if address.startswith(_UNIX):
        _listen_unix(Path(address.removeprefix(_UNIX)), bind)
        return address
    try:
        port = bind(address)
    except RuntimeError as error:
        raise AddressError(errno.EADDRINUSE, f"cannot listen: {error}", address) from None
    host = address.rpartition(":")[0]
    return f"{host}:{port}"


def make_way(path: Path) -> None:
    """Have a private folder for a socket, and no dead socket in its place.

    Raises `AddressError` where a socket in use, or something else, is at the path.
    """
    _make_private_folder(path.parent)
    _remove_stale(path)


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _listen_unix(path: Path, bind: Callable[[str], int]) -> None:
    make_way(path)
    # gRPC makes the socket itself, so its mode can only be set by the umask.
    before = os.umask(0o177)
    try:
        bind(f"{_UNIX}{path}")
    except RuntimeError as error:
        raise AddressError(errno.EADDRINUSE, f"cannot listen: {error}", str(path)) from None
    finally:
        os.umask(before)
    if stat.S_IMODE(path.lstat().st_mode) & 0o077:
        raise AddressError(errno.EPERM, "the socket is open to others", str(path))


def _make_private_folder(folder: Path) -> None:
    """Raises `AddressError` if others could put a socket of theirs into the folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise AddressError(errno.EPERM, "others can change this folder; chmod 0700", str(folder))


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; refuse one that is in use, or another file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressError(errno.EEXIST, "not a socket", str(path))
    if not deserted(path):
        raise AddressError(errno.EADDRINUSE, "another server listens here", str(path))
    path.unlink(missing_ok=True)


def deserted(path: Path) -> bool:
    """Whether it is a socket on which nobody listens any more."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # Who takes nothing any more, and has enough waiting, is there.
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:  # There is none, or not yet.
            pass
    return False
