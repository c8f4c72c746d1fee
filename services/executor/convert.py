"""Turns what the executor knows into messages, and specs into what it knows."""

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from agent.messages import Process, Processes
from agent.record import Stream
from cove.executor.v1 import executor_pb2 as pb
from services.executor.ending import End, Reason
from services.executor.executions import Snapshot
from services.executor.output import Chunk, Gap, Missing
from services.executor.record import Spec, State

_DEFAULT_TIMEOUT_NS: Final = 3600 * 10**9
_LATEST_NS: Final = 253_402_300_799 * 10**9
"""The last second that a Timestamp can hold."""
_SECOND_NS: Final = 10**9

_STATES: Final = {
    State.STARTING: pb.Execution.STATE_STARTING,
    State.RUNNING: pb.Execution.STATE_RUNNING,
    State.ENDED: pb.Execution.STATE_ENDED,
}
_STREAMS: Final = {
    Stream.STDOUT: pb.Chunk.STREAM_STDOUT,
    Stream.STDERR: pb.Chunk.STREAM_STDERR,
    Stream.TERMINAL: pb.Chunk.STREAM_TERMINAL,
}
_MISSING: Final = {
    Missing.DISK_FULL: pb.Gap.REASON_DISK_FULL,
    Missing.DAMAGED: pb.Gap.REASON_DAMAGED,
}
_PROCESS_STATES: Final = {
    "R": pb.Process.STATE_RUNNING,
    "S": pb.Process.STATE_SLEEPING,
    "I": pb.Process.STATE_SLEEPING,
    "D": pb.Process.STATE_BLOCKED,
    "T": pb.Process.STATE_STOPPED,
    "t": pb.Process.STATE_STOPPED,
}
_MOST: Final = 2**31 - 1
_MOST_BYTES: Final = 2**63 - 1


def spec_of(message: pb.ExecutionSpec) -> Spec:
    """The spec, with every default filled in."""
    given = message.timeout.seconds * _SECOND_NS + message.timeout.nanos
    return Spec(
        argv=tuple(message.argv),
        script=message.script,
        interpreter=message.interpreter or ("sh" if message.script else ""),
        cwd=message.cwd,
        env=dict(message.env),
        merge_stderr=message.merge_stderr,
        timeout_ns=given if message.HasField("timeout") else _DEFAULT_TIMEOUT_NS,
        stdin=message.stdin == pb.ExecutionSpec.STDIN_OPEN or message.HasField("terminal"),
        rows=message.terminal.rows,
        cols=message.terminal.cols,
        secrets=tuple(sorted(message.secrets)),
        redact=message.redact,
    )


def execution(found: Snapshot, alive: Processes | None = None) -> pb.Execution:
    record, progress = found.record, found.progress
    return pb.Execution(
        name=record.name,
        spec=_spec(record.spec),
        state=_STATES[progress.state],
        exit=exit_of(progress.end) if progress.end else None,
        create_time=_time(record.created_ns),
        start_time=_time(found.start_ns),
        output_bytes=found.output_bytes,
        input_bytes=found.input.taken,
        input_closed=found.input.closed,
        etag=f"{record.token}-{progress.state.name.lower()}",
        processes=_processes(alive) if alive else None,
    )


def exit_of(end: End) -> pb.Exit:
    message = pb.Exit(
        start_time=_time(end.start_ns),
        end_time=_time(end.end_ns),
        cpu_time=_duration(end.cpu_us * 1000),
        peak_memory_bytes=end.peak_bytes,
        output_bytes=end.output_bytes,
    )
    match end.reason:
        case Reason.CODE:
            message.code = end.number
        case Reason.SIGNAL:
            message.signal.number = end.number
            message.signal.core_dumped = end.core_dumped
        case Reason.TIMED_OUT:
            message.timed_out.which = pb.Exit.TimedOut.WHICH_TIMEOUT
        case Reason.MEMORY:
            message.limit.which = pb.Exit.Limited.WHICH_MEMORY
        case Reason.CANCELLED:
            message.cancelled.by = end.text
        case Reason.LOST:
            message.lost.reason = end.text
    return message


def chunk(found: Chunk) -> pb.Chunk:
    return pb.Chunk(
        stream=_STREAMS.get(found.stream, pb.Chunk.STREAM_STDOUT),
        offset=found.offset,
        time=_time(found.time_ns),
        data=found.data,
    )


def gap(found: Gap) -> pb.Gap:
    message = pb.Gap(to=found.end, reason=_MISSING[found.why])
    setattr(message, "from", found.begin)  # A keyword of this language.
    return message


def _spec(spec: Spec) -> pb.ExecutionSpec:
    return pb.ExecutionSpec(
        argv=spec.argv,
        script=spec.script,
        interpreter=spec.interpreter,
        cwd=spec.cwd,
        env=spec.env,
        merge_stderr=spec.merge_stderr,
        timeout=_duration(spec.timeout_ns),
        stdin=pb.ExecutionSpec.STDIN_OPEN if spec.stdin else pb.ExecutionSpec.STDIN_UNSPECIFIED,
        terminal=pb.Terminal(rows=spec.rows, cols=spec.cols) if spec.rows else None,
        secrets=dict.fromkeys(spec.secrets, ""),
        redact=spec.redact,
    )


def _processes(alive: Processes) -> pb.Processes:
    return pb.Processes(total=min(alive.total, _MOST), processes=map(_process, alive.listed))


def _process(found: Process) -> pb.Process:
    arguments = found.command.decode(errors="replace").removesuffix("\0").split("\0")
    return pb.Process(
        pid=max(0, min(found.pid, _MOST)),
        state=_PROCESS_STATES.get(found.state, pb.Process.STATE_UNSPECIFIED),
        argv=arguments,
        memory_bytes=max(0, min(found.memory_bytes, _MOST_BYTES)),
        start_time=_time(max(0, found.start_ns)),
    )


def _time(ns: int) -> Timestamp | None:
    """None for 0, as nothing happened in 1970. The agent's word is not trusted to be a date."""
    seconds, nanos = divmod(min(ns, _LATEST_NS), _SECOND_NS)
    return Timestamp(seconds=seconds, nanos=nanos) if ns else None


def _duration(ns: int) -> Duration:
    seconds, nanos = divmod(min(ns, 10_000 * 365 * 86400 * _SECOND_NS), _SECOND_NS)
    return Duration(seconds=seconds, nanos=nanos)
