"""A warm cell: an agent in a sandbox that starts commands and operations when asked.

What comes out of it is not believed: whatever breaks the protocol ends the cell.
"""

import asyncio
import marshal
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from services.git.channel import Channel, Pipe
from services.git.command import Command
from services.git.entrance import unavailable
from services.git.errors import CellLost, OutputTooLarge, TooLarge, failed
from services.git.process import Program, Running, close_all
from services.git.within import frames, wire
from services.git.within.frames import WireError
from services.git.within.main import ENDED, READY
from services.git.within.wire import Payload

_START_TIMEOUT: Final = 30.0
_PATIENCE: Final = 10.0
"""Seconds that a killed command may take to be gone; then its cell ends."""
_WORKERS: Final = 4
_ENVELOPE: Final = 1024


class Warm:
    """`start` it; it can be used until it is `lost`, and it is gone after `end`."""

    def __init__(self, agent: Running, control: Channel) -> None:
        self._agent = agent
        self._control = control
        self._number = 0
        self._waiting: dict[int, asyncio.Future[int | None]] = {}
        self._workers: list[_Worker] = []
        self._slots = asyncio.Semaphore(_WORKERS)
        self._ending: asyncio.Task[None] | None = None
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, make: Callable[[int], Program]) -> "Warm":
        """Start what `make` makes of the agent's end of a socket. Raises `CellUnavailable`."""
        ours, theirs = socket.socketpair()
        control = Channel(ours, _ENVELOPE)
        agent = None
        try:
            with theirs:
                agent = await Running.start(make(theirs.fileno()))
            async with asyncio.timeout(_START_TIMEOUT):
                await _ready(agent, control)
            return cls(agent, control)
        except BaseException as error:
            control.close()
            if agent is not None:
                await agent.close()
            if isinstance(error, TimeoutError | WireError | ConnectionError):
                raise unavailable(str(error) or "it takes too long") from None
            raise

    @property
    def lost(self) -> bool:
        """Whether it has ended, by itself or by `end`."""
        return self._ending is not None or self._listener.done()

    @property
    def pid(self) -> int:
        """Of the process of ours that holds it."""
        return self._agent.pid

    def run(
        self,
        command: Command,
        cwd: str,
        constants: Mapping[str, bytes],
        stdin: int | None,
        stdout: int | None,
        descriptors: Sequence[int],
    ) -> Running:
        """Start a command. Raises `CellLost`."""
        theirs: list[int] = []
        ours: list[Pipe | None] = []
        given: list[int] = []
        try:
            for number, one in enumerate((stdin, stdout, None)):
                if one is not None:
                    given.append(one)
                    ours.append(None)
                    continue
                reading, writing = os.pipe()
                mine, other = (writing, reading) if number == 0 else (reading, writing)
                theirs.append(other)
                given.append(other)
                ours.append(Pipe(mine))
            request = (
                [os.fsencode(word) for word in command.argv],
                {os.fsencode(key): os.fsencode(value) for key, value in command.env.items()},
                os.fsencode(cwd),
                {os.fsencode(path): data for path, data in constants.items()},
                list(descriptors),
            )
            number, ended = self._ask("run", *request, descriptors=[*given, *descriptors])
            return Running(_Guest(self, number, ended, *ours))
        except BaseException:
            for pipe in ours:
                if pipe is not None:
                    pipe.close()
            raise
        finally:
            close_all(theirs)

    async def call(
        self,
        name: str,
        payload: Payload,
        constants: Mapping[str, bytes],
        descriptors: Sequence[int],
        limit: int,
    ) -> tuple[Payload, list[int]]:
        """Have a worker do an operation. Raises `CellLost`, `OutputTooLarge`, what `failed` makes,
        and `TooLarge` where it is given too much.

        Broken off, it is killed.
        """
        request = {"name": name, "payload": payload, "constants": constants, "limit": limit}
        data = wire.pack(request)
        if len(data) > frames.LIMIT:
            raise TooLarge("there is more to be looked at than a cell takes", command=name)
        async with self._slots:
            worker = self._worker()
            try:
                worker.channel.send(data, descriptors)
                frame = await worker.channel.receive(limit + _ENVELOPE)
                if frame is None:
                    raise CellLost("the operation was broken off", command=name)
            except BaseException as error:
                worker.channel.close()
                self.kill(worker.number)
                if isinstance(error, OSError | WireError):
                    raise CellLost(f"the operation broke off: {error}", command=name) from None
                raise
            self._workers.append(worker)
        return _answer(name, frame)

    def kill(self, number: int) -> None:
        """Kill a command or a worker, if it still runs."""
        if number in self._waiting:
            with suppress(OSError):
                self._control.send(marshal.dumps(("kill", number)))

    async def end(self) -> None:
        """End it with all that runs in it; returns when that is gone."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        await asyncio.shield(self._ending)

    def _worker(self) -> "_Worker":
        while self._workers:
            worker = self._workers.pop()
            if not worker.ended.done() and worker.channel.is_quiet:
                return worker
            worker.channel.close()
            self.kill(worker.number)
        ours, theirs = socket.socketpair()
        with theirs:
            channel = Channel(ours, frames.LIMIT)
            try:
                return _Worker(channel, *self._ask("work", descriptors=[theirs.fileno()]))
            except BaseException:
                channel.close()
                raise

    def _ask(
        self, what: str, *rest: Any, descriptors: Sequence[int]
    ) -> tuple[int, asyncio.Future[int | None]]:
        if self.lost:
            raise CellLost("the cell has ended")
        self._number += 1
        try:
            self._control.send(marshal.dumps((what, self._number, *rest)), descriptors)
        except OSError:
            raise CellLost("the cell has ended") from None
        ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = ended
        return self._number, ended

    async def _listen(self) -> None:
        try:
            while (frame := await self._control.receive()) is not None:
                close_all(frame[1])
                number, code = ENDED.unpack(frame[0])
                self._waiting.pop(number).set_result(code)
        except (WireError, OSError, struct.error, KeyError):
            pass  # Nothing more that it says is listened to.
        finally:
            if self._ending is None:
                self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        self._listener.cancel()
        await asyncio.wait([self._listener])
        self._control.close()
        try:
            await self._agent.close()
        finally:
            for worker in self._workers:
                worker.channel.close()
            for ended in self._waiting.values():
                ended.set_result(None)
            self._waiting.clear()


class _Worker:
    """A process in the cell that does operations, one at a time."""

    def __init__(self, channel: Channel, number: int, ended: asyncio.Future[int | None]) -> None:
        self.channel = channel
        self.number = number
        self.ended = ended


class _Guest:
    """A command in a warm cell. It is a `Started`."""

    def __init__(
        self,
        warm: Warm,
        number: int,
        ended: asyncio.Future[int | None],
        stdin: Pipe | None,
        stdout: Pipe | None,
        stderr: Pipe | None,
    ) -> None:
        self._warm = warm
        self._number = number
        self._ended = ended
        self._stdin = stdin
        self._stdout = stdout
        self._stderr = stderr

    @property
    def pid(self) -> int:
        return self._warm.pid

    async def read(self, size: int) -> bytes:
        return await self._stdout.read(size) if self._stdout else b""

    async def read_errors(self, size: int) -> bytes:
        return await self._stderr.read(size) if self._stderr else b""

    async def feed(self, data: bytes) -> None:
        if self._stdin:
            try:
                await self._stdin.write(data)
            finally:
                self._stdin.close()

    async def wait(self) -> int:
        code = await asyncio.shield(self._ended)
        if code is None:
            raise CellLost("the cell ended before the command did")
        return code

    def kill(self) -> None:
        self._warm.kill(self._number)

    async def release(self) -> None:
        done, _ = await asyncio.wait([self._ended], timeout=_PATIENCE)
        if not done:
            await self._warm.end()
        for pipe in (self._stdin, self._stdout, self._stderr):
            if pipe is not None:
                pipe.close()


async def _ready(agent: Running, control: Channel) -> None:
    if await control.receive() != (READY, []):
        await agent.wait()
        raise unavailable(agent.errors)


def _answer(name: str, frame: frames.Frame) -> tuple[Payload, list[int]]:
    data, descriptors = frame
    try:
        said = wire.unpack(data)
        if isinstance(answer := said.get("answer"), dict):
            return answer, descriptors
        if said.get("error") == "too large":
            raise OutputTooLarge("git's answer is too large", command=name)
        raise failed(name, 1, str(said.get("text", said.get("error"))))
    except WireError as error:
        close_all(descriptors)
        raise CellLost(f"the operation answered wrongly: {error}", command=name) from None
    except BaseException:
        close_all(descriptors)
        raise
