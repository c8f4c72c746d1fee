"""Logs: JSON lines for machines, short lines for a terminal, the correlation id in all.

What is not known about an event in advance goes into `extra={"fields": {…}}`,
never into the message. No secret and no content of a workspace is ever a field.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple, Self, TextIO

from servicekit import calls

_PRETTY_TIME: Final = "%H:%M:%S"


def set_up(service: str, level: str, stream: TextIO | None = None) -> None:
    """Log everything of this process to `stream`, by default the standard error."""
    out = stream or sys.stderr
    handler = LineHandler(out)
    handler.setFormatter(PrettyFormatter(service) if out.isatty() else JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class Alike(NamedTuple):
    """What is told of many calls in the same words."""

    fields: Mapping[str, str]
    json: str
    """The same, without its braces."""

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Self:
        return cls(fields, json.dumps(fields, ensure_ascii=False)[1:-1])


class Told(logging.LogRecord):
    """A call that ended, at the level INFO; `more` follow. It is no record of which process, which
    thread and which line of the source, which nobody reads and costs the most."""

    call: calls.Call
    alike: Alike
    milliseconds: float
    more: bool

    def __init__(self, when: float) -> None:
        vars(self).update(_PLAIN)
        self.created, self.msecs = when, when % 1 * 1000

    @property
    def fields(self) -> Mapping[str, object]:
        return {**self.alike.fields, "ms": self.milliseconds}


_PLAIN: Final = vars(
    logging.LogRecord("servicekit.calls", logging.INFO, __file__, 0, "call", (), None)
)


class LineHandler(logging.Handler):
    """Writes whole lines, at once unless the record says that `more` follow.

    Nobody listening is no reason to fail.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # Whoever logs does not fail of it.
            line = self.format(_unwritten(record))
        self._lines.append(line)
        if not getattr(record, "more", False):
            lines, self._lines = self._lines, []
            with suppress(OSError, ValueError):
                self._stream.write("\n".join([*lines, ""]))
                self._stream.flush()


class JsonFormatter(logging.Formatter):
    """One JSON object a line; times are UTC."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        self._encode = json.JSONEncoder(default=str, ensure_ascii=False).encode
        self._second = 0, ""

    def format(self, record: logging.LogRecord) -> str:
        call = _call_of(record)
        second = int(record.created)
        if self._second[0] != second:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        moment = f"{self._second[1]}.{int(record.msecs):03d}Z"
        if isinstance(record, Told):  # Of which there are most: in one piece.
            return (
                f'{{"time": "{moment}", "level": "info", "service": "{self._service}", '
                f'"message": "call", "request_id": "{call.correlation_id}", '
                f'"trace_id": "{call.traceparent[3:35]}", {record.alike.json}, '
                f'"ms": {record.milliseconds}}}'
            )
        line: dict[str, object] = {
            "time": moment,
            "level": record.levelname.lower(),
            "service": self._service,
            "message": record.getMessage(),
        }
        if call.correlation_id:
            line["request_id"] = call.correlation_id
            line["trace_id"] = call.traceparent[3:35]
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self._encode(line)


class PrettyFormatter(logging.Formatter):
    """For the eyes of a developer."""

    def __init__(self, service: str) -> None:
        super().__init__(datefmt=_PRETTY_TIME)
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        shown = "".join(f" {name}={value}" for name, value in fields.items())
        text = f"{self.formatTime(record, _PRETTY_TIME)} {record.levelname[0]} {self._service}: "
        text += record.getMessage() + shown
        if correlation_id := _call_of(record).correlation_id:
            text += f" [{correlation_id[:8]}]"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _unwritten(record: logging.LogRecord) -> logging.LogRecord:
    """What is told in place of one that cannot be put into words; within its exception."""
    told = logging.LogRecord(
        *(record.name, logging.ERROR, record.pathname, record.lineno),
        *("a line of the log cannot be written", (), sys.exc_info()),
    )
    told.fields = {"where": f"{record.pathname}:{record.lineno}"}
    return told


def _call_of(record: logging.LogRecord) -> calls.Call:
    """The call that a line is about: its own, when it is written later."""
    call = getattr(record, "call", None)
    return call if isinstance(call, calls.Call) else calls.current()
