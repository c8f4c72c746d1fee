"""Durations as callers give them, and as messages have them."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration


def duration(value: timedelta | float | None) -> Duration | None:
    """None is none; a number is seconds."""
    if value is None:
        return None
    made = Duration()
    made.FromTimedelta(value if isinstance(value, timedelta) else timedelta(seconds=value))
    return made


def duration_if(value: timedelta | float | None) -> Duration | None:
    """As `duration`, and 0 is none."""
    return duration(value) if value else None
