"""What the commands write, and where."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from cove.cli import remedies

if TYPE_CHECKING:  # They take a while to import.
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from cove.status import CoveError

_ESCAPES: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
_GAP: Final = "   "
_LONG: Final = 120


class Console:
    """Standard output and error of one command. With `as_json` the output is for programs."""

    def __init__(self, out: BinaryIO, error: BinaryIO, *, as_json: bool = False) -> None:
        self._out = out
        self._error = error
        self.as_json = as_json
        self.is_raw = False
        """Whether the terminal does as it is told only: a line then ends where it began."""

    @classmethod
    def standard(cls) -> "Console":
        return cls(sys.stdout.buffer, sys.stderr.buffer)

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads the output."""
        return self._out.isatty() and not self.as_json

    @property
    def has_colours(self) -> bool:
        """Whether the output may have colours: NO_COLOR is for those who want none."""
        wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return self.is_terminal and wanted

    @property
    def shows_progress(self) -> bool:
        """Whether a person sees what is beside the output."""
        return self._error.isatty() and not self.as_json

    def line(self, text: str = "") -> None:
        """One line of output."""
        self.write(f"{text}\n".encode(errors="surrogateescape"))

    def note(self, text: str) -> None:
        """One line beside the output."""
        end = "\r\n" if self.is_raw else "\n"
        self.write_error(f"{text}{end}".encode(errors="surrogateescape"))

    def write(self, data: bytes) -> None:
        """Bytes of output, at once."""
        _write(self._out, data)

    def write_error(self, data: bytes) -> None:
        """Bytes beside the output, at once."""
        _write(self._error, data)

    def json(self, value: "Message | Mapping[str, Any]") -> None:
        """One line of JSON; messages in the mapping of proto3."""
        if not isinstance(value, Mapping):
            from google.protobuf.json_format import MessageToDict

            value = MessageToDict(value)
        self.line(json.dumps(value, ensure_ascii=False))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Columns as wide as what is in them."""
        lines = [header, *rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.line(_GAP.join(cells).rstrip())

    def failed(self, error: "CoveError") -> None:
        """Tell of a failed call, and what to do about it with this command line."""
        remedy = remedies.of(error.reason, error.metadata) or error.remedy
        if self.as_json:
            told = {
                "code": error.code.name,
                "reason": error.reason,
                "message": error.message,
                "remedy": remedy,
                "metadata": error.metadata,
                "fields": [{"field": each.field, "problem": each.problem} for each in error.fields],
                "requestId": error.request_id,
            }
            self.note(json.dumps({"error": told}, ensure_ascii=False))
            return
        facts = [f"{each.field}: {each.problem}" for each in error.fields]
        if not facts:
            facts = [f"{name} {value}" for name, value in error.metadata.items() if value]
        new = [fact for fact in facts if len(fact) < _LONG and fact not in error.message]
        details = f" ({printable('; '.join(new))})" if new else ""
        self.trouble(f"{printable(error.message)}{details}", printable(remedy))

    def trouble(self, message: str, remedy: str = "") -> None:
        """Tell what went wrong, and what to do."""
        if self.as_json:
            told = {"message": message, "remedy": remedy}
            self.note(json.dumps({"error": told}, ensure_ascii=False))
            return
        self.note(f"error: {message}")
        if remedy:
            self.note(f"remedy: {remedy}")


def _write(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
    stream.flush()


def printable(text: str) -> str:
    """The text without what could steer a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def quoted(path: str, raw_path: bytes = b"") -> str:
    """A path as git shows it: in quotes with escapes where it has unusual characters."""
    if raw_path:
        path = raw_path.decode(errors="surrogateescape")
    if path.isprintable() and '"' not in path and "\\" not in path:
        return path
    return f'"{"".join(map(_escaped, path))}"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    return "".join(f"\\{byte:03o}" for byte in char.encode(errors="surrogateescape"))


def when(time: "Timestamp") -> str:
    """A point in time; empty when it is not set."""
    return time.ToDatetime(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time.seconds else ""


def age(time: "Timestamp") -> str:
    """How long ago, roughly."""
    if not time.seconds:
        return ""
    seconds = int((datetime.now(UTC) - time.ToDatetime(UTC)).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


def span(duration: "Duration") -> str:
    """How long something lasts, in its largest whole unit; empty when it is not set."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if duration.seconds and not duration.seconds % size:
            return f"{duration.seconds // size}{unit}"
    return f"{duration.seconds}s" if duration.seconds else ""
