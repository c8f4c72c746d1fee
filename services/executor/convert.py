"""Turns what the executor knows into messages, and specs into what it knows."""

from collections.abc import Mapping
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from agent.messages import Process, Processes
from cove.executor.v1 import executor_pb2 as pb
from services.executor.ending import End, Reason, Usage
from services.executor.executions import Snapshot
from services.executor.record import Limits, Spec, State
from services.executor.retention import Retention
from services.executor.using import Sample

_DEFAULT_TIMEOUT_NS: Final = 3600 * 10**9
_LATEST_NS: Final = 253_402_300_799 * 10**9
"""The last second that a Timestamp can hold."""
_SECOND_NS: Final = 10**9

_STATES: Final = {
    State.STARTING: pb.Execution.STATE_STARTING,
    State.RUNNING: pb.Execution.STATE_RUNNING,
    State.ENDED: pb.Execution.STATE_ENDED,
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
_TIMEOUTS: Final = {
    "timeout": pb.Exit.TimedOut.WHICH_TIMEOUT,
    "idle_output": pb.Exit.TimedOut.WHICH_IDLE_OUTPUT,
}
_LIMITS: Final = {
    Reason.MEMORY: pb.Exit.Limited.WHICH_MEMORY,
    Reason.PIDS: pb.Exit.Limited.WHICH_PIDS,
    Reason.DISK: pb.Exit.Limited.WHICH_DISK,
    Reason.OUTPUT: pb.Exit.Limited.WHICH_OUTPUT,
    Reason.CPU: pb.Exit.Limited.WHICH_CPU,
}
_METHODS: Final = {
    "": pb.Capabilities.LIMIT_METHOD_UNSPECIFIED,
    "cgroup_v1": pb.Capabilities.LIMIT_METHOD_CGROUP_V1,
    "cgroup_v2": pb.Capabilities.LIMIT_METHOD_CGROUP_V2,
    "rlimit": pb.Capabilities.LIMIT_METHOD_RLIMIT,
    "watched": pb.Capabilities.LIMIT_METHOD_WATCHED,
}

Request = pb.StartExecutionRequest | pb.ExecuteRequest | pb.StreamExecutionRequest
"""What starts an execution."""


def spec_of(message: pb.ExecutionSpec) -> Spec:
    """The spec, with every default filled in."""
    given = _ns(message.timeout)
    return Spec(
        argv=tuple(message.argv),
        script=message.script,
        interpreter=message.interpreter or ("sh" if message.script else ""),
        cwd=message.cwd,
        env=dict(message.env),
        merge_stderr=message.merge_stderr,
        timeout_ns=given if message.HasField("timeout") else _DEFAULT_TIMEOUT_NS,
        idle_output_timeout_ns=_ns(message.idle_output_timeout),
        limits=Limits(
            memory_bytes=message.limits.memory_bytes,
            processes=message.limits.processes,
            milli_cpus=message.limits.milli_cpus,
            open_files=message.limits.open_files,
            cpu_time_ns=_ns(message.limits.cpu_time),
        ),
        output_limit=message.output_limit,
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
        create_time=time_of(record.created_ns),
        start_time=time_of(found.start_ns),
        output_bytes=found.output_bytes,
        usage=used(found.usage, found.output_bytes),
        input_bytes=found.input.taken,
        input_closed=found.input.closed,
        etag=f"{record.token}-{progress.state.name.lower()}",
        processes=_processes(alive) if alive else None,
    )


def exit_of(end: End) -> pb.Exit:
    message = pb.Exit(
        start_time=time_of(end.start_ns),
        end_time=time_of(end.end_ns),
        cpu_time=_duration(end.cpu_us * 1000),
        peak_memory_bytes=end.peak_bytes,
        output_bytes=end.output_bytes,
        usage=used(end.usage, end.output_bytes),
    )
    match end.reason:
        case Reason.CODE:
            message.code = end.number
        case Reason.SIGNAL:
            message.signal.number = end.number
            message.signal.core_dumped = end.core_dumped
        case Reason.TIMED_OUT:
            message.timed_out.which = _TIMEOUTS.get(end.text, pb.Exit.TimedOut.WHICH_TIMEOUT)
        case Reason.MEMORY | Reason.PIDS | Reason.DISK | Reason.OUTPUT | Reason.CPU:
            message.limit.which = _LIMITS[end.reason]
        case Reason.CANCELLED:
            message.cancelled.by = end.text
        case Reason.LOST:
            message.lost.reason = end.text
    return message


def used(usage: Usage, output_bytes: int) -> pb.Usage:
    return pb.Usage(
        cpu_time=_duration(usage.cpu_us * 1000),
        memory_bytes=usage.memory_bytes,
        peak_memory_bytes=usage.peak_bytes,
        oom_kills=usage.oom_kills,
        processes=usage.processes,
        peak_processes=usage.peak_processes,
        forks_refused=usage.forks_refused,
        read_bytes=usage.read_bytes,
        written_bytes=usage.written_bytes,
        output_bytes=output_bytes,
    )


def sample(found: Sample) -> pb.UsageSample:
    return pb.UsageSample(
        time=time_of(found.time_ns),
        usage=used(found.usage, found.output_bytes),
        running=found.running,
    )


def capabilities(found: Mapping[str, str], keeps: Retention) -> pb.Capabilities:
    """`found` has the method of each limit that is enforced."""
    methods = {name: _METHODS[found.get(name, "")] for name in ("memory", "pids", "cpu", "time")}
    return pb.Capabilities(
        memory=methods["memory"],
        processes=methods["pids"],
        milli_cpus=methods["cpu"],
        open_files=pb.Capabilities.LIMIT_METHOD_RLIMIT,
        cpu_time=methods["time"],
        disk=pb.Capabilities.LIMIT_METHOD_WATCHED,
        retention=pb.Capabilities.Retention(
            execution_bytes=keeps.execution_bytes,
            head_bytes=keeps.head_bytes,
            environment_bytes=keeps.environment_bytes,
            age=_duration(keeps.age_ns),
            holes=keeps.holes,
        ),
    )


def _spec(spec: Spec) -> pb.ExecutionSpec:
    return pb.ExecutionSpec(
        argv=spec.argv,
        script=spec.script,
        interpreter=spec.interpreter,
        cwd=spec.cwd,
        env=spec.env,
        merge_stderr=spec.merge_stderr,
        timeout=_duration(spec.timeout_ns),
        idle_output_timeout=_duration_if(spec.idle_output_timeout_ns),
        limits=_limits(spec.limits) if spec.limits != Limits() else None,
        output_limit=spec.output_limit,
        stdin=pb.ExecutionSpec.STDIN_OPEN if spec.stdin else pb.ExecutionSpec.STDIN_UNSPECIFIED,
        terminal=pb.Terminal(rows=spec.rows, cols=spec.cols) if spec.rows else None,
        secrets=dict.fromkeys(spec.secrets, ""),
        redact=spec.redact,
    )


def _limits(limits: Limits) -> pb.ExecutionLimits:
    return pb.ExecutionLimits(
        memory_bytes=limits.memory_bytes,
        processes=limits.processes,
        milli_cpus=limits.milli_cpus,
        open_files=limits.open_files,
        cpu_time=_duration_if(limits.cpu_time_ns),
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
        start_time=time_of(max(0, found.start_ns)),
    )


def time_of(ns: int) -> Timestamp | None:
    """None for 0, as nothing happened in 1970. The agent's word is not trusted to be a date."""
    seconds, nanos = divmod(min(ns, _LATEST_NS), _SECOND_NS)
    return Timestamp(seconds=seconds, nanos=nanos) if ns else None


def seconds(duration: Duration) -> float:
    return _ns(duration) / _SECOND_NS


def _ns(duration: Duration) -> int:
    return duration.seconds * _SECOND_NS + duration.nanos


def _duration_if(ns: int) -> Duration | None:
    return _duration(ns) if ns else None


def _duration(ns: int) -> Duration:
    seconds, nanos = divmod(min(ns, 10_000 * 365 * 86400 * _SECOND_NS), _SECOND_NS)
    return Duration(seconds=seconds, nanos=nanos)
