"""Input of executions: writing it exactly once, holding it, and the size of terminals.

How far an input came only the agent knows, and after the end what it noted beside the result; so
nothing is lost when an executor ends. No byte waits here but those of the call that brings them.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from agent.client import AgentClient, AgentError, ErrorCode, InputState
from servicekit.errors import InvalidArgument, ServiceError
from services.executor.agents import Agents
from services.executor.background import Background
from services.executor.errors import (
    AgentTooOld,
    AgentUnavailable,
    EnvironmentDormant,
    ExecutionEnded,
    InputClosed,
    InputGap,
    InputHeld,
    InputNotOpen,
    TerminalNotOpen,
)
from services.executor.keeping import Keeper
from services.executor.record import Record, State
from services.executor.store import Store

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PART: Final = 64 << 10
"""Bytes that the agent is given at once."""
_PAUSE: Final = 0.02
"""Seconds before it is asked again when nothing fitted."""
_WATCH: Final = 5.0
"""Seconds for which the agent is asked whether another writer came."""
_AGAIN: Final = 0.5
"""The same while it does not answer."""
NO_INPUT: Final = InputState(0, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Who writes. Without a name it writes as long as nobody holds the input."""

    name: str = ""
    take_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes of input, and how many are before them."""

    offset: int
    data: bytes
    close: bool = False

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


class Inputs:
    """Raises ExecutionEnded, InputNotOpen, AgentUnavailable and AgentTooOld where they fit."""

    def __init__(
        self, *, store: Store, agents: Agents, keeper: Keeper, background: Background
    ) -> None:
        self._store = store
        self._agents = agents
        self._keeper = keeper
        self._background = background
        self._holders: Counter[tuple[str, str]] = Counter()
        """Calls that hold an input, by execution and writer: who comes again has the same name."""

    async def state(self, record: Record, *, sure: bool = True) -> InputState:
        """How far it is; nothing where there is none, and where its end was lost.

        Without `sure` also where the agent does not say.
        """
        if not record.spec.has_input:
            return NO_INPUT
        if noted := self._store.input(record):
            return noted
        if self._store.progress(record).state is not State.RUNNING:
            return NO_INPUT
        try:
            return await self._ask(record, lambda agent: agent.input(record.key))
        except ExecutionEnded:
            return self._store.input(record) or NO_INPUT
        except (AgentUnavailable, AgentTooOld):
            if sure:
                raise
            return NO_INPUT

    async def write(
        self, record: Record, piece: Piece, writer: Writer, *, seconds: float | None = None
    ) -> InputState:
        """Write what is new of a piece. Returns when all is written, or how far after `seconds`.

        Raises InputGap, InputHeld, InputClosed.
        """
        self.check(record)
        if piece.close and record.spec.rows:
            raise InvalidArgument("close", "a terminal has no end of input: write Ctrl-D, byte 4")
        give_up = None if seconds is None else time.monotonic() + seconds
        at = piece.offset
        while True:
            state = await self._write_part(record, piece, at, writer)
            over = state.closed or not piece.close
            if (state.taken >= piece.end and over) or (give_up and time.monotonic() > give_up):
                return state
            if state.taken <= at:
                await asyncio.sleep(_PAUSE)
            at = min(max(at, state.taken), piece.end)
            writer = Writer(name=writer.name)  # Taken over is only once.

    async def _write_part(
        self, record: Record, piece: Piece, at: int, writer: Writer
    ) -> InputState:
        begin = at - piece.offset
        part = piece.data[begin : begin + _PART]
        last = at + len(part) == piece.end
        try:
            return await self._ask(
                record,
                lambda agent: agent.write_input(
                    record.key,
                    at,
                    part,
                    close=piece.close and last,
                    writer=writer.name,
                    take_over=writer.take_over,
                ),
            )
        except (ExecutionEnded, InputClosed):
            noted = self._store.input(record)
            if noted and piece.end <= noted.taken:
                return InputState(noted.taken, closed=True)  # All of it came before the end.
            raise

    def check(self, record: Record) -> None:
        """Raises InputNotOpen where there is no input."""
        if not record.spec.has_input:
            raise InputNotOpen("it was started without an input", name=record.name)

    async def resize(self, record: Record, rows: int, cols: int) -> None:
        """Raises TerminalNotOpen."""
        if not record.spec.rows:
            raise TerminalNotOpen("it was started without a terminal", name=record.name)
        await self._ask(record, lambda agent: agent.resize(record.key, rows, cols))

    @asynccontextmanager
    async def held(
        self, record: Record, writer: Writer, lost: Callable[[], object] = int
    ) -> AsyncIterator[InputState]:
        """Hold the input within the block; `lost` is called when another writer takes it over.

        Raises InputHeld.
        """
        self.check(record)
        state = await self._hold(record, writer, wait=0.0)
        holder = record.key, writer.name
        self._holders[holder] += 1
        watching = asyncio.create_task(self._watch(record, Writer(name=writer.name), lost))
        try:
            yield state
        finally:
            watching.cancel()
            self._holders[holder] -= 1
            if not self._holders[holder]:
                del self._holders[holder]
                self._background.begin(self.release(record, writer))

    async def _hold(self, record: Record, writer: Writer, *, wait: float) -> InputState:
        try:
            return await self._ask(
                record,
                lambda agent: agent.input(
                    record.key, writer=writer.name, take_over=writer.take_over, wait=wait
                ),
            )
        except ExecutionEnded:
            return self._store.input(record) or InputState(0, closed=True)

    async def _watch(self, record: Record, writer: Writer, lost: Callable[[], object]) -> None:
        while self._store.progress(record).state is State.RUNNING:
            begin = time.monotonic()
            try:
                await self._hold(record, writer, wait=_WATCH)
            except InputHeld:
                lost()
                return
            except ServiceError as error:
                _log.debug("the input is not held for sure", exc_info=error)
            if time.monotonic() - begin < _AGAIN:
                await asyncio.sleep(_AGAIN)

    async def release(self, record: Record, writer: Writer) -> None:
        """Let the writer hold the input no longer; soon, where the agent does not answer."""
        try:
            await self._ask(record, lambda agent: agent.release_input(record.key, writer.name))
        except ServiceError as error:  # Then it is let go after a while.
            _log.debug("the input is let go late", exc_info=error)

    async def _ask(self, record: Record, call: Callable[[AgentClient], Awaitable[T]]) -> T:
        try:
            async with self._agents.awake(record.uid) as agent:
                return await call(agent)
        except EnvironmentDormant:
            raise ExecutionEnded("its sandbox has ended", name=record.name) from None
        except AgentError as error:
            raise await self._refusal(record, error) from error

    async def _refusal(self, record: Record, error: AgentError) -> ServiceError:
        name = record.name
        match error.code:
            case ErrorCode.EXECUTION_NOT_FOUND:
                if await self._keeper.certain(record) in (State.ENDED, State.REMOVED):
                    return ExecutionEnded("the execution has ended", name=name)
                return AgentUnavailable("the agent does not know it yet", name=name)
            case ErrorCode.INPUT_CLOSED:
                if self._store.progress(record).state is State.ENDED:
                    return ExecutionEnded("the execution has ended", name=name)
                return InputClosed("the input is closed", name=name, expected=str(error))
            case ErrorCode.INPUT_GAP:
                return InputGap(
                    "bytes before the offset are missing", name=name, expected=str(error)
                )
            case ErrorCode.INPUT_HELD:
                return InputHeld("another writer holds the input", name=name)
            case ErrorCode.INPUT_NONE:
                return InputNotOpen("it was started without an input", name=name)
            case ErrorCode.TERMINAL_NONE:
                if self._store.progress(record).state is State.ENDED:
                    return ExecutionEnded("the execution has ended", name=name)
                return TerminalNotOpen("its terminal is gone", name=name)
            case ErrorCode.BAD_REQUEST if not error.errno:
                return AgentTooOld("the agent knows nothing of input", uid=record.uid)
            case _:
                return AgentUnavailable("the agent could not do it", cause=str(error))
