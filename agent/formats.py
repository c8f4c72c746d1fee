"""How an execution is kept on disk: the output log and the result file, as they are written.

The log is a row of records, each a header and a payload. A record's offset is the number of
payload bytes before it over all streams, those of gaps counted. The result is one block of 4 KiB,
zeros until the execution has ended, written once: a full disk cannot lose it.
"""

import struct
from binascii import crc32

RECORD = struct.Struct("<IBBHQQ")
"""Bytes of payload, kind, stream, flags (none yet), time in ns since 1970, offset."""

MAX_RECORD = 256 << 10
"""Payload bytes of one record at most."""

KIND_START, KIND_CHUNK, KIND_GAP, KIND_EXIT = 1, 2, 3, 4
KIND_PREVIEW = 5
"""Output as it was seen live by a stand-in: not exact, and none of the output's bytes. What a
reader gets for good follows, in chunks."""
STDOUT, STDERR, TERMINAL = 1, 2, 3

GAP = struct.Struct("<Q")
"""Payload of a gap: how many bytes were dropped, as the disk was full."""

RESULT_SIZE = 4096
RESULT_MAGIC = b"CoveExit"
RESULT_HEADER = struct.Struct("<8sHHI")
"""Magic, version, bytes of the body, CRC-32 of the body."""
RESULT_BODY = struct.Struct("<BBiQQQQQQQ")
"""Kind, flag (core dumped), number, start ns, end ns, user CPU us, system CPU us, peak memory KiB,
output bytes, of these dropped. Then text: who cancelled, which timeout, which
limit."""
MAX_TEXT = 1024

INPUT = struct.Struct("<8sQBI")
"""At the end of the block of a result, when there was an input: magic, bytes taken, whether it
was closed, CRC-32 of these. Written before the result."""
INPUT_MAGIC = b"CoveInpt"

EXIT_CODE, EXIT_SIGNAL, EXIT_TIMED_OUT, EXIT_CANCELLED, EXIT_LIMITED = 1, 2, 3, 4, 5


def record(kind: int, stream: int, time_ns: int, offset: int, size: int) -> bytes:
    """The header of a record with `size` bytes of payload."""
    return RECORD.pack(size, kind, stream, 0, time_ns, offset)


def result(version: int, body: tuple[int, ...], text: bytes) -> bytes:
    """The body of an exit record, which is also what a result file begins with."""
    data = RESULT_BODY.pack(*body) + text[:MAX_TEXT]
    return RESULT_HEADER.pack(RESULT_MAGIC, version, len(data), crc32(data)) + data


def input_note(taken: int, *, closed: bool) -> bytes:
    """What the block of a result ends with."""
    blank = INPUT.pack(INPUT_MAGIC, taken, closed, 0)
    return INPUT.pack(INPUT_MAGIC, taken, closed, crc32(blank))
