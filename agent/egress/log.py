"""Lines of JSON, as the services write them, to a file that never grows beyond a bound."""

import json
import os
import sys
import time
from typing import Any, Final

_MOST_BYTES: Final = 16 << 20
"""Of a file; the one before is kept."""
_NAME: Final = "egress.log"


class _Out:
    """Where lines go: standard error, until a directory is named."""

    descriptor = 2
    directory = -1
    written = 0


def open_in(path: str, owner: int | None) -> None:
    """Write to `egress.log` in this directory, which is made, of `owner` when given."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    _Out.directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if owner is not None:
        os.fchown(_Out.directory, owner, owner)
    _begin(owner)


def say(event: str, **fields: Any) -> None:
    """One line. What cannot be written is lost: nobody waits for a log."""
    moment = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    line = {"time": f"{stamp}.{int(moment % 1 * 1000):03}Z", "service": "egress", "event": event}
    data = json.dumps({**line, **fields}).encode() + b"\n"
    try:
        os.write(_Out.descriptor, data)
        _Out.written += len(data)
        if _Out.directory >= 0 and _Out.written > _MOST_BYTES:
            os.rename(_NAME, f"{_NAME}.1", src_dir_fd=_Out.directory, dst_dir_fd=_Out.directory)
            os.close(_Out.descriptor)
            _begin(None)
    except OSError:
        return


def complain(message: str) -> None:
    """For who starts it."""
    print(message, file=sys.stderr)  # noqa: T201


def _begin(owner: int | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    _Out.descriptor = os.open(_NAME, flags, 0o600, dir_fd=_Out.directory)
    if owner is not None:
        os.fchown(_Out.descriptor, owner, owner)
    _Out.written = os.fstat(_Out.descriptor).st_size
