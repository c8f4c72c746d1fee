"""Spans of what is done inside of a call.

A call that is sampled has a recorder, and so has all that is done for it. Any other costs the
look whether there is one. The span of the call itself is recorded by the observer.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from servicekit import calls
from servicekit.spans import Kind, Span

_TRACE: Final = slice(3, 35)
_SPAN: Final = slice(36, 52)


def trace_of(traceparent: str) -> str:
    """The id of the trace, 32 hexadecimal digits."""
    return traceparent[_TRACE]


def span_of(traceparent: str) -> str:
    """The id of the span, 16 hexadecimal digits."""
    return traceparent[_SPAN]


def is_sampled(traceparent: str) -> bool:
    """Whether who wrote it records the trace."""
    return bool(int(traceparent[53:55], 16) & 1)


def written(trace: str, *, sampled: bool) -> str:
    """The traceparent of a new span of `trace`."""
    return f"00-{trace}-{calls.new_span_id()}-{'01' if sampled else '00'}"


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[None]:
    """What the block does is a span of its own, where the current call is sampled.

    `name` is of few, known in advance; attributes are ids and kinds, and no contents. Of what the
    block raises the kind is told, and no text.
    """
    call = calls.current()
    recorder = call.recorder
    if recorder is None:
        yield
        return
    own = written(trace_of(call.traceparent), sampled=True)
    calls.spanning(own)
    began, failed = time.time_ns(), ""
    try:
        yield
    except BaseException as error:
        failed = _word(error)
        raise
    finally:
        calls.spanning(call.traceparent)
        told = {f"cove.{key}": value for key, value in attributes.items()}
        if failed:
            told["error.type"] = failed
        parent = span_of(call.traceparent)
        recorder.record(Span(name, Kind.INTERNAL, own, parent, began, time.time_ns(), told, failed))


def _word(error: BaseException) -> str:
    code = getattr(error, "code", None)  # An RPC that failed.
    found = code() if callable(code) else None
    return str(getattr(found, "name", "")) or type(error).__name__
