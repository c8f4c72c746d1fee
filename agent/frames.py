"""Frames of the agent's and the launcher's sockets.

A frame is a header and a payload. The payload of an agent's frame is a row of fields, each a
length and bytes; numbers are decimal text. Nothing is trusted: every length is checked.
"""

import errno
import struct

HEADER = struct.Struct("<IBBHI")
"""Bytes of payload, protocol version, kind, descriptors sent along, number of the request."""

MAX_PAYLOAD = 8 << 20
MAX_DESCRIPTORS = 16

HELLO, START, SIGNAL, CANCEL, LIST = 1, 2, 3, 4, 5
OPEN, MAKE_DIRECTORY, REMOVE, RENAME = 6, 7, 8, 9
PREPARE, RUN = 10, 11
"""A start in two steps: what can be done before the command is known, and the rest."""
LEAVE = 12
"""End now, if nothing runs: as after the idle timeout, but whoever is connected. With a number of
milliseconds: if nothing has run for so long; the answer has a second number then, for how long."""
LIMITS, EXCEEDED = 40, 41
"""What a start to come may use; and that a running one has met a limit, and is to end."""
FORGET = 42
"""What was prepared is not used after all. Nothing is prepared as that: it is done."""
START_OPEN = 13
"""A start with an input: as START, and after the seventh field its kind, rows, columns."""
WRITE, INPUT, RELEASE, RESIZE = 14, 15, 16, 17
"""Input of an execution: write; how far it is, and hold it; let it go; size of the terminal."""
START_OPEN_SECRETLY = 18
"""START_OPEN with secrets, as START_SECRETLY has them."""
READ_ARCHIVE, WRITE_ARCHIVE, WATCH, END_HELPER = 20, 21, 22, 23
"""What a helper of the agent's does over descriptors that come along, and its end. It says how it
went, or what happens, in packets of fields on the last descriptor, the first field one of:"""
DONE, FAILED, STAGED, CHANGES = b"done", b"failed", b"staged", b"changes"
CONNECT, PROCESSES = 50, 51
"""A connection to a port of the sandbox's localhost; what is alive of executions."""
START_SECRETLY, RUN_SECRETLY = 52, 53
"""START and RUN with secrets: an agent of an earlier version, which cannot keep them, refuses."""
LISTEN, CLOSE_LISTENER = 30, 31
"""The way out of the sandbox: open a listener on its loopback and send it, or close it."""
HANDLE = 60
"""The handle that the caller has, to an agent of a driver whose handles move. OK with the one that
is in force when it is the same; else HANDLE_STALE or HANDLE_INVALID."""
LAUNCHER = 64
"""A request to the launcher, or the proxy: the payload is one JSON object."""
OK, ERROR = 100, 101

MAX_PACKET = 64 << 10
"""Bytes of one packet of a helper."""
CREATED, MODIFIED, REMOVED, MOVED, OVERFLOW, GONE = range(1, 7)
"""What a helper that watches tells: each with whether it is a directory, path, path before."""

PROCESS, GROUP, TREE = 1, 2, 3
"""Scopes of a signal."""

OUTPUT, DISK, PIDS, CPU = b"output", b"disk", b"pids", b"cpu"
"""Limits that end an execution."""
PIPE, TERMINAL = 1, 2
"""Kinds of input."""

PROGRAM_NOT_FOUND = b"PROGRAM_NOT_FOUND"
PROGRAM_NOT_EXECUTABLE = b"PROGRAM_NOT_EXECUTABLE"
CWD_NOT_FOUND = b"CWD_NOT_FOUND"
LIMIT_REACHED = b"LIMIT_REACHED"
ALREADY_STARTED = b"ALREADY_STARTED"
EXECUTION_NOT_FOUND = b"EXECUTION_NOT_FOUND"
NOT_PREPARED = b"NOT_PREPARED"
PATH_OUTSIDE = b"PATH_OUTSIDE"
ARCHIVE_INVALID = b"ARCHIVE_INVALID"
ARCHIVE_TOO_LARGE = b"ARCHIVE_TOO_LARGE"
FILE_CHANGED = b"FILE_CHANGED"
WATCH_LIMIT = b"WATCH_LIMIT"
UNPROTECTED = b"UNPROTECTED"
OS_ERROR = b"OS_ERROR"
BAD_REQUEST = b"BAD_REQUEST"
INPUT_NONE = b"INPUT_NONE"
INPUT_CLOSED = b"INPUT_CLOSED"
INPUT_GAP = b"INPUT_GAP"
INPUT_HELD = b"INPUT_HELD"
TERMINAL_NONE = b"TERMINAL_NONE"
HANDLE_STALE = b"HANDLE_STALE"
HANDLE_INVALID = b"HANDLE_INVALID"
CANNOT = b"CANNOT"

_LENGTH = struct.Struct("<I")


def pack(*fields: bytes | int) -> bytes:
    """One payload of all `fields`."""
    parts = []
    for field in fields:
        data = field if isinstance(field, bytes) else b"%d" % field
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def too_many_in_flight() -> bytes:
    """Of an error: the descriptor cannot be sent, as too many of this uid are on their way."""
    return pack(OS_ERROR, errno.ETOOMANYREFS, b"too many descriptors on their way")


def unpack(payload: bytes) -> list[bytes]:
    """The fields of a payload. Raises ValueError when a length does not fit."""
    fields = []
    at = 0
    while at < len(payload):
        if at + 4 > len(payload):
            raise ValueError("field cut short")
        (size,) = _LENGTH.unpack_from(payload, at)
        at += 4
        if size > len(payload) - at:
            raise ValueError("field cut short")
        fields.append(payload[at : at + size])
        at += size
    return fields


def frame(version: int, kind: int, number: int, payload: bytes, descriptors: int = 0) -> bytes:
    """Header and payload, ready to send."""
    if len(payload) > MAX_PAYLOAD or descriptors > MAX_DESCRIPTORS:
        raise ValueError("frame too large")
    return HEADER.pack(len(payload), version, kind, descriptors, number) + payload


def split(buffer: bytearray, limit: int = MAX_PAYLOAD) -> tuple[int, int, int, int, bytes] | None:
    """Take one whole frame off the front of `buffer`, or None when it has not all come.

    Gives version, kind, descriptors, number, payload. Raises ValueError when it exceeds a limit.
    """
    if len(buffer) < HEADER.size:
        return None
    size, version, kind, descriptors, number = HEADER.unpack_from(buffer)
    if size > limit or descriptors > MAX_DESCRIPTORS:
        raise ValueError("frame too large")
    end = HEADER.size + size
    if len(buffer) < end:
        return None
    payload = bytes(buffer[HEADER.size : end])
    del buffer[:end]
    return version, kind, descriptors, number, payload
