"""What the agent is told to run: argv, directory and environment, made from a spec."""

import errno
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from agent.client import AgentError, Command, CommandLimits, ErrorCode, Terminal
from servicekit import calls
from servicekit.disk import full
from servicekit.errors import InvalidArgument, ServiceError
from services.executor.errors import (
    AgentTooOld,
    AgentUnavailable,
    CapabilityMissing,
    CwdNotFound,
    ProcessLimit,
    ProgramNotExecutable,
    ProgramNotFound,
    SecretsUnprotected,
)
from services.executor.record import Record, Spec
from services.executor.secrets import Variables

_ROOT: Final = "/workspace"
_SHELL: Final = "sh"
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/home/cove",
    "LANG": "C.UTF-8",
    "USER": "cove",
}
_TRACE: Final = "TRACEPARENT"
_TERMINAL: Final = {"TERM": "xterm-256color"}
_UNKNOWN: Final = "unknown request"
"""What an agent says to what it does not know."""
_MILLISECOND_NS: Final = 1_000_000
_SECOND_NS: Final = 1_000_000_000


def command(record: Record, variables: Variables) -> Command:
    """The command of an execution. Its environment holds nothing of this process's own."""
    spec = record.spec
    terminal = Terminal(spec.rows, spec.cols) if spec.rows else None
    usual = {**_ENVIRONMENT, **(_TERMINAL if terminal else {}), **_trace()}
    return Command(
        argv=_argv(spec),
        cwd=f"{_ROOT}/{spec.cwd}" if not spec.cwd.startswith("/") else spec.cwd,
        env={**usual, **variables.env, **spec.env, "COVE_EXECUTION_ID": record.key},
        merge_stderr=spec.merge_stderr,
        stdin=spec.stdin,
        terminal=terminal,
        timeout=_duration(spec.timeout_ns),
        idle_output_timeout=_duration(spec.idle_output_timeout_ns),
        secrets={name: variables.secrets[name] for name in spec.secrets},
        redact=spec.redact,
    )


def _trace() -> Mapping[str, str]:
    """The trace goes on in the command, unless nobody but the logs would know of it."""
    call = calls.current()
    return {_TRACE: call.traceparent} if call.traced else {}


def limits(record: Record, variables: Variables, groups: Mapping[str, str]) -> CommandLimits:
    """What the agent is told to keep. `groups` has what control groups limit instead."""
    wanted = record.spec.limits
    files = [each for each in (wanted.open_files, variables.open_files) if each]
    return CommandLimits(
        output_bytes=record.spec.output_limit,
        data_bytes=0 if "memory" in groups else wanted.memory_bytes,
        cpu_seconds=-(-wanted.cpu_time_ns // _SECOND_NS),
        file_bytes=record.disk_bytes,
        open_files=min(files, default=0),
        processes=0 if "pids" in groups else wanted.processes,
    )


def _duration(ns: int) -> timedelta | None:
    return timedelta(milliseconds=-(-ns // _MILLISECOND_NS)) if ns else None


def cannot(error: AgentError) -> CapabilityMissing:
    """What a caller is told when the driver has no such thing."""
    return CapabilityMissing(
        f"environments of this driver cannot do this: {error}",
        remedy="Leave it out, or make the workspace with a driver that has the capability.",
        capability=str(error),
    )


def refusal(error: AgentError, spec: Spec) -> ServiceError:
    """What a caller is told when the agent did not start it."""
    program = _argv(spec)[0]
    match error.code:
        case ErrorCode.PROGRAM_NOT_FOUND:
            return ProgramNotFound("no such program in the environment", program=program)
        case ErrorCode.PROGRAM_NOT_EXECUTABLE:
            return ProgramNotExecutable("the program may not be run", program=program)
        case ErrorCode.CWD_NOT_FOUND:
            return CwdNotFound("the working directory cannot be entered", cwd=spec.cwd or _ROOT)
        case ErrorCode.LIMIT_REACHED:
            return ProcessLimit("the environment's limit of processes is reached")
        case ErrorCode.OS_ERROR if spec.rows and error.errno == errno.EAGAIN:
            return ProcessLimit("this host's limit of terminals is reached")
        case ErrorCode.BAD_REQUEST if spec.has_input and str(error) == _UNKNOWN:
            return AgentTooOld("the agent knows nothing of input")
        case ErrorCode.CANNOT:
            return cannot(error)
        case ErrorCode.UNPROTECTED:
            return SecretsUnprotected("the kernel cannot keep secrets of one command from others")
        case ErrorCode.BAD_REQUEST if spec.secrets and str(error) == _UNKNOWN:
            return AgentTooOld("the agent cannot keep secrets")
        case ErrorCode.BAD_REQUEST:
            return InvalidArgument("spec", "the agent cannot run this")
        case _ if told := full(error.errno):
            return told
        case _:
            return AgentUnavailable("the agent could not start it", cause=str(error))


def _argv(spec: Spec) -> tuple[str, ...]:
    return spec.argv or (spec.interpreter or _SHELL, "-c", spec.script)
