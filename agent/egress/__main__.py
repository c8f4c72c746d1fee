"""Runs the proxy: `python -m agent.egress --runtime DIR [--log DIR]`."""

import argparse
import asyncio
import contextlib
import ctypes
import encodings.idna  # noqa: F401 - before rights are dropped: what is not loaded may be unreadable.
import fcntl
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from agent.egress import EGRESS_UID, log
from agent.egress.door import Shared
from agent.egress.resolving import Resolve, Resolver
from agent.egress.server import Server

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_DUMPABLE: Final = 4
_OPEN_FILES: Final = 65536


def main(resolve: Resolve | None = None) -> int:
    os.environ["LOCALDOMAIN"] = "."  # A search list would lead to names that are not listed.
    options = _options()
    options.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(options.runtime / "egress.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.complain(f"another proxy serves {options.runtime}")
        return 2
    if options.log:
        log.open_in(str(options.log), EGRESS_UID if _may_drop() else None)
    path = options.runtime / "egress"
    path.unlink(missing_ok=True)
    user = os.getuid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(16)
        _drop()
        asyncio.run(_serve(listener, user, resolve))
    return 0


async def _serve(listener: socket.socket, user: int, resolve: Resolve | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    Server(listener, user, Shared(resolve or Resolver()))
    log.say("serving")
    await stop.wait()
    # Threads wait for what will never come; listeners stay open for the next of us.
    os._exit(0)


def _may_drop() -> bool:
    """Whether we are root with its rights; in a container we may have none to begin with."""
    if os.getuid() != 0:
        return False
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    wanted = 1 << 0 | 1 << 6 | 1 << 7  # CAP_CHOWN, CAP_SETGID, CAP_SETUID
    return int(effective.split()[1], 16) & wanted == wanted


def _drop() -> None:
    """Hostile programs talk to us: keep nothing that is not needed."""
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(hard, _OPEN_FILES) if hard != resource.RLIM_INFINITY else _OPEN_FILES
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if _may_drop():
        os.setgroups([])
        os.setresgid(EGRESS_UID, EGRESS_UID, EGRESS_UID)
        os.setresuid(EGRESS_UID, EGRESS_UID, EGRESS_UID)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m agent.egress", description=__doc__)
    parser.add_argument("--runtime", type=_absolute, required=True, metavar="DIR", help="sockets")
    parser.add_argument("--log", type=_absolute, metavar="DIR", help="else standard error")
    return parser.parse_args()


def _absolute(text: str) -> Path:
    return Path(text).absolute()


if __name__ == "__main__":
    sys.exit(main())
