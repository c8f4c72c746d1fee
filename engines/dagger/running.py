"""Runs commands for the stand-in: each is one generation of its environment."""

from pathlib import Path
from typing import Final

from agent import formats, frames
from agent.inside.redaction import Redactor
from agent.standin.runner import Asked, Ending, Output, Refused
from engines.dagger import shim
from engines.dagger.command import uninterrupted
from engines.dagger.environments import Environments
from engines.dagger.errors import (
    CommandLost,
    DaggerFailure,
    EngineFull,
    EngineLost,
    EngineUnavailable,
    HandleBehind,
    HandleInvalid,
    HandleStale,
)

_PIECE: Final = 256 << 10
_SIGNALS: Final = 128
_EIO, _ENOSPC, _ENOTCONN, _ESTALE = 5, 28, 107, 116


class DaggerRunner:
    """What `serving.Late` does of `agent.standin.runner.Runner` when the SDK is there."""

    def __init__(self, environments: Environments, node: str) -> None:
        self._environments = environments
        self._node = node

    async def check(self, uid: str, asked: Asked) -> None:
        """That the environment is there, and the program. Raises Refused."""
        try:
            head, _ = await self._environments.recovered(uid)
            path = asked.env.get("PATH", "")
            # A file that was just written may be the program: only the command itself can tell.
            if head.dirty and "/" in asked.argv[0]:
                return
            there = await self._environments.has_program(head, asked.argv[0], path, asked.cwd)
        except DaggerFailure as error:
            raise refusal(error) from error
        if not there:
            raise Refused(frames.PROGRAM_NOT_FOUND, "no such program")

    async def run(self, uid: str, asked: Asked, output: Output) -> Ending:
        """See `Runner.run`. What went wrong before the command could run makes it lost."""
        argv = shim.argv(asked.argv, asked.env, asked.cwd, timeout=asked.timeout, merge=asked.merge)
        secrets = tuple(asked.secrets.items())
        async with self._environments.writing(uid), self._environments.scratch() as folder:
            head = await self._environments.opened(uid)
            run = await self._environments.run(head, argv, secrets)
            output.begin()
            listener = None if asked.hidden else output.preview
            try:
                ran = await run.wait(folder, listener)
            except CommandLost as error:
                output.write(formats.STDOUT, error.output)
                output.write(formats.STDERR, error.errors)
                return _ending(error.code)
            await uninterrupted(_record, ran.out, ran.err, asked, output)
            if ran.code == "cwd":
                output.write(formats.STDERR, b"cannot enter the working directory\n")
                return Ending(number=126)
            code, late = shim.code(ran.code)
            if late:
                return Ending(kind=formats.EXIT_TIMED_OUT, number=code, text=b"timeout")
            return _ending(code)

    async def handle(self, uid: str, handle: bytes) -> bytes:
        try:
            head, anew = await self._environments.recovered(uid, handle)
            if anew and handle:
                raise HandleBehind(head.generation)
            return head.handle(self._node)
        except DaggerFailure as error:
            raise refusal(error) from error


def refusal(error: DaggerFailure) -> Refused:
    """How a client of the stand-in is told."""
    match error:
        case HandleBehind():
            return Refused(frames.HANDLE_STALE, str(error.generation), _ESTALE)
        case HandleStale() | HandleInvalid():
            return Refused(frames.HANDLE_INVALID, str(error))
        case EngineLost() | EngineUnavailable():
            return Refused(frames.OS_ERROR, str(error), _ENOTCONN)
        case EngineFull():
            return Refused(frames.OS_ERROR, str(error), _ENOSPC)
        case _:
            return Refused(frames.OS_ERROR, str(error), _EIO)


def _ending(code: int) -> Ending:
    """A shell tells a signal as 128 and its number; a code that is just that looks the same."""
    if _SIGNALS < code <= _SIGNALS + 64:
        return Ending(kind=formats.EXIT_SIGNAL, number=code - _SIGNALS)
    return Ending(number=code)


def _record(out: Path, err: Path, asked: Asked, output: Output) -> None:
    """The authoritative output. The streams are apart: which came first is not known."""
    for stream, path in ((formats.STDOUT, out), (formats.STDERR, err)):
        redactor = Redactor(asked.hidden)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue
        with file:
            while (data := file.read(_PIECE)) and not output.full:
                output.write(stream, redactor.feed(data) if asked.hidden else data)
            if asked.hidden:
                output.write(stream, redactor.rest())
