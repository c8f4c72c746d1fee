"""Reads what a client of an agent asks, see `agent.client`."""

import os

from agent import frames
from agent.inside.redaction import NONE, taken
from agent.standin.runner import Asked, Refused

STARTS = (frames.START, frames.START_SECRETLY)
INPUTS = (frames.START_OPEN, frames.START_OPEN_SECRETLY)
FILES = (
    *(frames.OPEN, frames.MAKE_DIRECTORY, frames.REMOVE, frames.RENAME),
    *(frames.READ_ARCHIVE, frames.WRITE_ARCHIVE, frames.WATCH, frames.END_HELPER),
)
_LIMITS = {
    b"data": "memory_limit",
    b"cpu": "cpu_limit",
    b"fsize": "disk_limit",
    b"nofile": "open_files_limit",
    b"nproc": "process_limit",
}
_CHANGES = (
    *(frames.MAKE_DIRECTORY, frames.REMOVE, frames.RENAME),
    *(frames.WRITE_ARCHIVE, frames.END_HELPER),  # Which is the end of what such a one writes.
)


def asked(kind: int, fields: list[bytes]) -> Asked:
    """The command of a start. Raises ValueError, IndexError, Refused."""
    secrets = NONE
    if kind == frames.START_SECRETLY:
        secrets = taken(fields, 1)
    key, cwd, merge, timeout, idle, grace, _, count, *rest = fields
    if int(idle):
        raise Refused(frames.CANNOT, "live_output")
    argv = rest[: int(count)]
    if not argv or len(argv) != int(count):
        raise ValueError("no command")
    pairs = [pair.split(b"=", 1) for pair in rest[int(count) :]]
    return Asked(
        key=key.decode(),
        argv=tuple(map(_text, argv)),
        cwd=_text(cwd),
        env={_text(name): _text(value) for name, value in pairs},
        secrets={_text(name): _text(value) for name, value in secrets.variables.items()},
        hidden=secrets.hidden,
        merge=merge != b"0",
        timeout=int(timeout) / 1000,
        grace=int(grace) / 1000,
    )


def input_of(kind: int, fields: list[bytes]) -> str:
    """The capability that a start with an input needs. Raises ValueError, IndexError."""
    if kind == frames.START_OPEN_SECRETLY:
        taken(fields, 1)
    return "terminal" if int(fields[7]) == frames.TERMINAL else "input"


def changes(kind: int, fields: list[bytes]) -> bool:
    """Whether a request about files may change any."""
    if kind == frames.OPEN:
        return bool(int(fields[1]) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    return kind in _CHANGES


def limits(fields: list[bytes]) -> tuple[int, str]:
    """Bytes of output, the one limit that a stand-in keeps; and the capability that another one
    needs. Raises ValueError."""
    output, *pairs = fields
    return int(output), next((_LIMITS[name] for name in pairs[::2] if name in _LIMITS), "")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
