"""What came of a command."""

import shlex
import signal as signals
from dataclasses import dataclass
from typing import Final

from cove.executor.v1 import executor_pb2

TIMED_OUT: Final = 124
"""Exit status of a command that its timeout ended, as `timeout` of the shell has it."""

_TAIL: Final = 20
"""Lines of the output in the text of `CommandFailed`."""

_SIGNALLED: Final = 128
_LOST: Final = 255


def exit_status(exit: executor_pb2.Exit) -> int:  # noqa: A002 - the contract's word.
    """The end of a command as the one number that a shell would show; see `Result`."""
    match exit.WhichOneof("reason"):
        case "code":
            return exit.code
        case "signal":
            return _SIGNALLED + exit.signal.number
        case "timed_out":
            return TIMED_OUT
        case "limit":
            return _SIGNALLED + signals.SIGKILL
        case "cancelled":
            return _SIGNALLED + signals.SIGTERM
        case _:
            return _LOST


class CommandFailed(Exception):
    """A command ended with another status than 0; see `result`.

    The text has the command, its end, and the last lines it wrote.
    """

    def __init__(self, result: "Result") -> None:
        spec = result.execution.spec
        command = shlex.join(spec.argv) or spec.script
        tail = (result.stderr.strip() or result.stdout.strip()).decode(errors="replace")
        lines = [f"{command}: exit status {result.exit_status}", *tail.splitlines()[-_TAIL:]]
        super().__init__("\n".join(lines))
        self.result = result


@dataclass(frozen=True, slots=True)
class Result:
    """A command that has ended, with its output up to 1 MiB of each stream."""

    execution: executor_pb2.Execution
    stdout: bytes
    stderr: bytes
    truncated: bool
    """Whether some of the output is left out here; `Execution.output` has it."""

    @property
    def exit_status(self) -> int:
        """As a shell shows it: 128+n after signal n, 124 after the timeout, 255 when nobody knows.

        `execution.exit` tells each end apart.
        """
        return exit_status(self.execution.exit)

    @property
    def text(self) -> str:
        """Standard output as text; what is not UTF-8 is replaced."""
        return self.stdout.decode(errors="replace")

    def check(self) -> "Result":
        """Itself. Raises `CommandFailed` unless the status is 0."""
        if self.exit_status:
            raise CommandFailed(self)
        return self
