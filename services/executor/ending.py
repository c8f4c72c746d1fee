"""How an execution ended: what the agent wrote, and what it cannot know."""

import json
import signal
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final, Self

from agent.record import ExitKind, Result

SIZE: Final = 8192
"""Bytes of an encoded end: room for every text that an agent may write, however escaped."""

_VERSION: Final = 1
_MOST: Final = 2**63 - 1
_SHELL: Final = 128
"""With that and the signal a shell exits when its last command was killed."""
_TOLD: Final = ("oom_kills", "peak_processes", "forks_refused", "read_bytes", "written_bytes")


class Reason(StrEnum):
    CODE = "code"
    SIGNAL = "signal"
    TIMED_OUT = "timed_out"
    MEMORY = "memory"
    PIDS = "pids"
    DISK = "disk"
    OUTPUT = "output"
    CPU = "cpu"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was used, as far as this host tells; 0 where it does not."""

    cpu_us: int = 0
    memory_bytes: int = 0
    peak_bytes: int = 0
    oom_kills: int = 0
    processes: int = 0
    peak_processes: int = 0
    forks_refused: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


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
    oom_kills: int = 0
    peak_processes: int = 0
    forks_refused: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    @property
    def usage(self) -> Usage:
        """What it used in all."""
        told = {name: getattr(self, name) for name in _TOLD}
        return Usage(cpu_us=self.cpu_us, peak_bytes=self.peak_bytes, **told)

    @classmethod
    def of(cls, result: Result, usage: Usage, cpu_us: int = 0, *, disk: bool = False) -> Self:
        """The end that the agent recorded.

        `cpu_us` is the limit of processor time, `disk` whether there was one of the disk.
        """
        return cls(
            reason=_reason(result, usage, cpu_us, disk=disk),
            number=result.number,
            core_dumped=result.core_dumped,
            text=result.text,
            start_ns=min(result.start_ns, _MOST),
            end_ns=min(result.end_ns, _MOST),
            cpu_us=min(usage.cpu_us or result.user_cpu_us + result.system_cpu_us, _MOST),
            peak_bytes=min(usage.peak_bytes or result.peak_memory_kib << 10, _MOST),
            output_bytes=min(result.output_bytes, _MOST),
            full=result.dropped_bytes > 0,
            **{name: getattr(usage, name) for name in _TOLD},
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
            **{name: getattr(usage, name) for name in _TOLD},
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


_LIMITS: Final = {
    each.value: each for each in (Reason.OUTPUT, Reason.DISK, Reason.PIDS, Reason.CPU)
}


def _reason(result: Result, usage: Usage, cpu_us: int, *, disk: bool) -> Reason:
    number = result.number - (_SHELL if result.kind is ExitKind.CODE else 0)
    match result.kind:
        case ExitKind.LIMITED:
            return _LIMITS.get(result.text, Reason.CANCELLED)
        case ExitKind.TIMED_OUT:
            return Reason.TIMED_OUT
        case ExitKind.CANCELLED:
            return Reason.CANCELLED
        case ExitKind.SIGNAL | ExitKind.CODE:
            # A shell lives on when its child is killed, and only passes that on.
            used = usage.cpu_us or result.user_cpu_us + result.system_cpu_us
            if usage.oom_kills and number == signal.SIGKILL:
                return Reason.MEMORY
            if cpu_us and (
                number == signal.SIGXCPU or (number == signal.SIGKILL and used > cpu_us)
            ):
                return Reason.CPU
            if disk and number == signal.SIGXFSZ:
                return Reason.DISK
            return Reason.SIGNAL if result.kind is ExitKind.SIGNAL else Reason.CODE
