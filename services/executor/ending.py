"""How an execution ended: what the agent wrote, and what it cannot know."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final, Self

from agent.record import ExitKind, Result

SIZE: Final = 8192
"""Bytes of an encoded end: room for every text that an agent may write, however escaped."""

_VERSION: Final = 1
_MOST: Final = 2**63 - 1
_KILL: Final = 9
_SHELL_KILLED: Final = 128 + _KILL
"""With what a shell exits when its last command was killed."""


class Reason(StrEnum):
    CODE = "code"
    SIGNAL = "signal"
    TIMED_OUT = "timed_out"
    MEMORY = "memory"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the control groups of an execution tell; 0 where they do not."""

    oom_kills: int = 0
    peak_bytes: int = 0
    cpu_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of one execution. Every number fits 63 bits, whatever the agent wrote."""

    reason: Reason
    number: int = 0
    """The exit code, or the signal."""
    core_dumped: bool = False
    text: str = ""
    """Who cancelled, or why nobody saw the end."""
    start_ns: int = 0
    end_ns: int = 0
    cpu_us: int = 0
    peak_bytes: int = 0
    output_bytes: int = 0
    full: bool = False
    """Output was lost as the disk was full."""

    @classmethod
    def of(cls, result: Result, usage: Usage) -> Self:
        """The end that the agent recorded."""
        return cls(
            reason=_reason(result, usage),
            number=result.number,
            core_dumped=result.core_dumped,
            text=result.text,
            start_ns=min(result.start_ns, _MOST),
            end_ns=min(result.end_ns, _MOST),
            cpu_us=min(usage.cpu_us or result.user_cpu_us + result.system_cpu_us, _MOST),
            peak_bytes=min(usage.peak_bytes or result.peak_memory_kib << 10, _MOST),
            output_bytes=min(result.output_bytes, _MOST),
            full=result.dropped_bytes > 0,
        )

    @classmethod
    def lost(cls, why: str, *, start_ns: int, end_ns: int, output: int, usage: Usage) -> Self:
        """Nobody saw it end; `output` bytes of what it wrote are there."""
        return cls(
            reason=Reason.LOST,
            text=why,
            start_ns=min(start_ns, _MOST),
            end_ns=end_ns,
            cpu_us=usage.cpu_us,
            peak_bytes=usage.peak_bytes,
            output_bytes=output,
        )

    def encode(self) -> bytes:
        """A block that fits the place that was kept for it."""
        return json.dumps({"version": _VERSION} | asdict(self)).encode().ljust(SIZE, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """None while it is not whole."""
        if data[:1] == b"\0":
            return None
        try:
            values = json.loads(data.rstrip(b"\0"))
            if values.pop("version") != _VERSION:
                return None
            return cls(**(values | {"reason": Reason(values["reason"])}))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _reason(result: Result, usage: Usage) -> Reason:
    match result.kind:
        case ExitKind.TIMED_OUT:
            return Reason.TIMED_OUT
        case ExitKind.CANCELLED:
            return Reason.CANCELLED
        case ExitKind.SIGNAL:
            memory = usage.oom_kills > 0 and result.number == _KILL
            return Reason.MEMORY if memory else Reason.SIGNAL
        case ExitKind.CODE:
            # A shell lives on when its child is killed, and only passes that on.
            memory = usage.oom_kills > 0 and result.number == _SHELL_KILLED
            return Reason.MEMORY if memory else Reason.CODE
