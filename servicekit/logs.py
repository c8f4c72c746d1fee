"""Logs: JSON lines for machines, short lines for a terminal, the correlation id in all.

What is not known about an event in advance goes into `extra={"fields": {…}}`,
never into the message. No secret and no content of a workspace is ever a field.
"""

import json
import logging
import sys
import time
from contextlib import suppress
from typing import Final, TextIO

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


class LineHandler(logging.Handler):
    """Writes whole lines, at once unless the record says that `more` follow.

    Nobody listening is no reason to fail.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))
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

    def format(self, record: logging.LogRecord) -> str:
        call = _call_of(record)
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
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


def _call_of(record: logging.LogRecord) -> calls.Call:
    """The call that a line is about: its own, when it is written later."""
    call = getattr(record, "call", None)
    return call if isinstance(call, calls.Call) else calls.current()
