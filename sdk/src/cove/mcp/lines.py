"""Some lines of a file, found without holding more of it than a window."""

from dataclasses import dataclass
from typing import Final

from cove import status
from cove.executor.v1.executor_pb2 import File
from cove.files import Content, Files

_WINDOW: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines; or the beginning of one that is too long."""

    file: File
    data: bytes
    says: str
    """Which they are, and where to read on."""

    @classmethod
    async def read(
        cls, files: Files, path: str, line: int, *, max_lines: int, max_bytes: int
    ) -> "Lines":
        """From a line on, counted from 1. Raises `OutOfRange` when there are not so many."""
        begin, etag = await _find(files, path, line)
        content = _same(etag, await files.fetch(path, begin, max_bytes))
        size = content.file.size
        data = content.data[: _after(content.data, max_lines)]
        if begin + len(data) < size and not data.endswith(b"\n"):
            data = data[: data.rfind(b"\n") + 1] or whole(data)
        end = begin + len(data)
        last = line + data.count(b"\n") - data.endswith(b"\n")
        if not size:
            says = "empty"
        elif end == size:
            says = f"lines {line} to {last}, the end, {size} bytes in all"
        elif data.endswith(b"\n"):
            says = f"lines {line} to {last}, {size} bytes in all; read on with line {last + 1}"
        else:
            says = (
                f"line {line} is long: bytes {begin} to {end} of {size}; read on with offset {end}"
            )
        return cls(content.file, data, says)


async def _find(files: Files, path: str, line: int) -> tuple[int, str]:
    """Where a line begins, and the etag of the file."""
    at, newlines, etag = 0, line - 1, ""
    while newlines:
        content = _same(etag, await files.fetch(path, at, _WINDOW))
        etag, here = content.file.etag, content.data.count(b"\n")
        if newlines <= here:
            at += _after(content.data, newlines)
            newlines = 0
        else:
            at += len(content.data)
            newlines -= here
        if at >= content.file.size:
            raise status.OutOfRange(
                f"there is no line {line}",
                reason="LINE_OUT_OF_RANGE",
                remedy=f"The file has {line - 1 - newlines} line ends; choose a line before.",
            )
    return at, etag


def _after(data: bytes, lines: int) -> int:
    """Where the first so many lines end."""
    end = 0
    for _ in range(lines):
        end = data.find(b"\n", end) + 1
        if not end:
            return len(data)
    return end


def _same(etag: str, content: Content) -> Content:
    if etag and etag != content.file.etag:
        raise status.Aborted(
            "the file was changed while it was read", reason="ERROR_REASON_FILE_CHANGED"
        )
    return content


def whole(data: bytes) -> bytes:
    """Without the beginning of a character at its end."""
    for length in range(1, min(4, len(data))):
        if data[-length] & 0xC0 == 0xC0:
            try:
                data[-length:].decode()
            except UnicodeDecodeError as error:
                return data[:-length] if "unexpected end" in error.reason else data
            return data
    return data
