"""What a file holds, on its way in either direction."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cove import status
from cove.executor.v1.executor_pb2 import File

UPLOAD_DEADLINE: Final = 3600.0
"""Seconds that an upload may take."""

_CHUNK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Content:
    """What was read of a file, and what the file was then."""

    file: File
    """Its `etag` makes a write conditional on what was read."""

    data: bytes


def pieces(content: str | bytes | Path) -> Iterator[bytes]:
    """Text as UTF-8, bytes, or those of a local file, of a size that fits a message."""
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        for begin in range(0, len(content), _CHUNK):
            yield content[begin : begin + _CHUNK]
        return
    with content.open("rb") as source:
        while data := source.read(_CHUNK):
            yield data


def same(before: str, now: str) -> str:
    """The etag of a file that is read on. Raises `Aborted` when it is another."""
    if before and before != now:
        raise status.Aborted(
            "the file was changed while it was read",
            reason="ERROR_REASON_FILE_CHANGED",
            remedy="Read it again.",
        )
    return now
