"""What a client and an agent say to each other, as the client sees it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum, StrEnum
from typing import Final

from agent import frames


class ErrorCode(StrEnum):
    """Why the agent did not do it."""

    PROGRAM_NOT_FOUND = frames.PROGRAM_NOT_FOUND.decode()
    PROGRAM_NOT_EXECUTABLE = frames.PROGRAM_NOT_EXECUTABLE.decode()
    CWD_NOT_FOUND = frames.CWD_NOT_FOUND.decode()
    LIMIT_REACHED = frames.LIMIT_REACHED.decode()
    """No more processes, memory, descriptors, or executions."""
    ALREADY_STARTED = frames.ALREADY_STARTED.decode()
    """The log is not empty: this execution ran before, and the agent does not know it."""
    EXECUTION_NOT_FOUND = frames.EXECUTION_NOT_FOUND.decode()
    """Nothing of this id runs."""
    NOT_PREPARED = frames.NOT_PREPARED.decode()
    """What was prepared is gone, and nothing was started: start it in one step."""
    PATH_OUTSIDE = frames.PATH_OUTSIDE.decode()
    """The path, or a symlink on it, leads out of /workspace, /home/cove and /tmp."""
    ARCHIVE_INVALID = frames.ARCHIVE_INVALID.decode()
    """It is no archive that is unpacked."""
    ARCHIVE_TOO_LARGE = frames.ARCHIVE_TOO_LARGE.decode()
    FILE_CHANGED = frames.FILE_CHANGED.decode()
    """A file got shorter while it was read."""
    WATCH_LIMIT = frames.WATCH_LIMIT.decode()
    """More directories than can be watched."""
    UNPROTECTED = frames.UNPROTECTED.decode()
    """The kernel cannot keep the secrets of one command from others of the sandbox."""
    OS_ERROR = frames.OS_ERROR.decode()
    """See `errno`."""
    BAD_REQUEST = frames.BAD_REQUEST.decode()
    INPUT_NONE = frames.INPUT_NONE.decode()
    """The command was started without an input."""
    INPUT_CLOSED = frames.INPUT_CLOSED.decode()
    """The input was closed, by us or by the command."""
    INPUT_GAP = frames.INPUT_GAP.decode()
    """The offset is beyond what came so far, which is the message."""
    INPUT_HELD = frames.INPUT_HELD.decode()
    """Another writer has the input."""
    TERMINAL_NONE = frames.TERMINAL_NONE.decode()
    """The command has no terminal."""
    HANDLE_STALE = frames.HANDLE_STALE.decode()
    """The environment has gone on since; the message is the generation in force."""
    HANDLE_INVALID = frames.HANDLE_INVALID.decode()
    """It is not, and never was, one of this environment."""
    CANNOT = frames.CANNOT.decode()
    """The driver has no such thing; the message is the capability that it lacks."""


class AgentError(Exception):
    """The agent refused. `errno` is 0 where no system call failed."""

    def __init__(self, code: ErrorCode, errno: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.errno = errno


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal for a command, and its size."""

    rows: int
    cols: int


MOST_INPUT: Final = 2**63 - 1
"""Bytes of input that anybody believes in, whatever an agent says."""


@dataclass(frozen=True, slots=True)
class InputState:
    """How far the input of an execution is."""

    taken: int
    """Bytes that were written to the command, or that it can read by now."""
    closed: bool
    """No more can come."""


class Scope(IntEnum):
    PROCESS = frames.PROCESS
    """The command's own process."""
    GROUP = frames.GROUP
    """Its process group."""
    TREE = frames.TREE
    """All its descendants, also those that left the group or the session.

    Exact with the v2 control group of `Sinks`. Without it, one that has lost its parent and has
    emptied its environment before it was seen stays until the sandbox ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. The environment is exactly `env`.

    `env` should hold COVE_EXECUTION_ID: without cgroups, what runs away is found again by it.
    """

    argv: Sequence[str | bytes]
    cwd: str | bytes = "/workspace"
    env: Mapping[str, str | bytes]
    merge_stderr: bool = False
    stdin: bool = False
    """Whether it has an input; else its stdin is /dev/null."""
    terminal: Terminal | None = None
    """Stdin, stdout and stderr are a terminal, which is its controlling one."""
    timeout: timedelta | None = None
    """From the start; then SIGTERM to the tree, and after `grace` SIGKILL."""
    idle_output_timeout: timedelta | None = None
    """The same when nothing was written for so long."""
    grace: timedelta = timedelta(seconds=5)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """More variables. No other command of the sandbox can read them: UNPROTECTED where it could."""
    redact: bool = False
    """Replace the values of `secrets`, each of 4 bytes or more, in what the command writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLimits:
    """What a command may use, as the agent keeps it; 0 is no limit."""

    output_bytes: int = 0
    """Recorded at most; then SIGTERM to the tree, and after its grace SIGKILL."""
    data_bytes: int = 0
    """Of each of its processes, as are all below: RLIMIT_DATA."""
    cpu_seconds: int = 0
    file_bytes: int = 0
    """The largest file it writes."""
    open_files: int = 0
    processes: int = 0
    """RLIMIT_NPROC: of all in the sandbox."""

    @property
    def resources(self) -> dict[bytes, int]:
        """By their names on the wire, those that are limited."""
        limits = {
            b"data": self.data_bytes,
            b"cpu": self.cpu_seconds,
            b"fsize": self.file_bytes,
            b"nofile": self.open_files,
            b"nproc": self.processes,
        }
        return {name: value for name, value in limits.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinks:
    """Descriptors that the agent is given; the caller closes its own after the start."""

    log: int
    """Empty regular file, O_APPEND and O_RDWR or O_WRONLY."""
    result: int
    """4 KiB of zeros, synced; written once at the end."""
    cgroup_procs: Sequence[int] = ()
    """`cgroup.procs` of the execution's own group in each v1 hierarchy, O_WRONLY."""
    unified: tuple[int, int] | None = None
    """`cgroup.procs` (O_RDWR) and `cgroup.kill` (O_WRONLY) of its group in the v2 hierarchy.
    With them a TREE is exact; else it is found through /proc."""


@dataclass(frozen=True, slots=True)
class Started:
    pid: int
    """In the sandbox's namespace; 0 when it has ended."""
    existing: bool
    """An earlier start of this id was found; nothing was started now."""


@dataclass(frozen=True, slots=True)
class Running:
    execution_id: str
    ended: bool
    """The result is written; only kept to answer a second start."""
    pid: int
    start_ns: int
    """0 while it only becomes a command, which may fail, so that it never was one."""
    output_bytes: int

    @property
    def begun(self) -> bool:
        """An agent of an earlier version says so of all."""
        return self.start_ns != 0


@dataclass(frozen=True, slots=True)
class Listing:
    processes: int
    """All processes in the sandbox but the agent, zombies not counted."""
    executions: tuple[Running, ...]

    @property
    def background(self) -> int:
        """Processes beside the commands' own; children of running commands are among them."""
        return max(0, self.processes - sum(not each.ended for each in self.executions))


@dataclass(frozen=True, slots=True)
class Process:
    """One process in the sandbox."""

    pid: int
    state: str
    """One letter, as in /proc: R, S, D, T, t, I."""
    memory_bytes: int
    """Resident."""
    start_ns: int
    command: bytes
    """Arguments, each followed by a NUL; cut after 256 bytes."""


@dataclass(frozen=True, slots=True)
class Processes:
    """What is alive of one execution."""

    total: int
    listed: tuple[Process, ...]
    """Some of them, when there are many."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory."""

    name: bytes
    stat: os.stat_result
    target: bytes = b""
    """Of a symlink."""
