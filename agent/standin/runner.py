"""What a stand-in asks of an engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent import formats
from agent.inside.log import Log

_PREVIEW: Final = 4 << 20
"""Bytes of preview that one execution keeps."""


class Refused(Exception):
    """It was not done. `code` is one of `agent.frames`."""

    def __init__(self, code: bytes, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.errno = errno


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A command, as `agent.messages.Command` has it. Times are seconds, 0 is none."""

    key: str
    """No other execution ever has the same."""
    argv: tuple[str, ...]
    """What is not UTF-8 is escaped, as the file system's names are."""
    cwd: str
    env: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    hidden: tuple[bytes, ...] = ()
    """Values that are masked in the output."""
    merge: bool = False
    timeout: float = 0.0
    grace: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a command ended: `kind` is an EXIT of `agent.formats`, `text` as there."""

    kind: int = formats.EXIT_CODE
    number: int = 0
    text: bytes = b""


class Output:
    """Where a runner writes what the command wrote."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._previewed = 0
        self.began = False

    def begin(self) -> None:
        """The command's time starts now: before, it waited for its turn."""
        self.began = True

    @property
    def full(self) -> bool:
        """More than the limit came; the rest is not recorded."""
        return self._log.exceeded

    def write(self, stream: int, data: bytes) -> None:
        """Output for good, in order. Any length."""
        for at in range(0, len(data), formats.MAX_RECORD):
            self._log.chunk(stream, data[at : at + formats.MAX_RECORD])

    def preview(self, stream: int, data: bytes) -> None:
        """Output as it is seen live, perhaps not all of it nor exact; `write` gets it all later."""
        data = data[: max(0, _PREVIEW - self._previewed)]
        self._previewed += len(data)
        if data:
            self._log.preview(stream, data[: formats.MAX_RECORD])


class Runner(Protocol):
    """An engine's means. All is called in one event loop."""

    async def check(self, uid: str, asked: Asked) -> None:
        """Raises Refused when it surely cannot run: nothing is recorded then."""
        ...

    async def run(self, uid: str, asked: Asked, output: Output) -> Ending:
        """Run it to its end, its timeout being the runner's to keep.

        Cancelled, it ends the command at once. What it raises makes the execution lost.
        """
        ...

    async def signal(self, uid: str, key: str, number: int, scope: int) -> None:
        """Raises Refused."""
        ...

    async def handle(self, uid: str, handle: bytes) -> bytes:
        """The handle in force now, for one that a caller has. Raises Refused."""
        ...

    def touched(self, uid: str) -> None:
        """Somebody is about to change the environment's files."""
        ...
