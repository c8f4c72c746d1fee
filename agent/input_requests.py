"""The part of the agent's client that is about the input of executions."""

from typing import Final

from agent import frames
from agent.channel import Reply
from agent.messages import MOST_INPUT, InputState
from agent.replies import TIMEOUT, Asking, numbers

_LONGEST: Final = 5.0
"""Seconds for which the agent waits for room, or for news; TIMEOUT comes on top."""


class InputRequests(Asking):
    """Raises AgentError for executions without input or that have ended, and PeerGone."""

    async def write_input(
        self,
        execution_id: str,
        offset: int,
        data: bytes,
        *,
        close: bool = False,
        writer: str = "",
        take_over: bool = False,
    ) -> InputState:
        """Write what of `data`, which is at `offset`, the agent has not had yet.

        Returns how far it came, which may be less: when there was no room for a while, not one
        byte further. INPUT_GAP, INPUT_CLOSED, INPUT_HELD. `close` when all has come.
        """
        payload = frames.pack(
            *(execution_id.encode(), writer.encode(), int(take_over)),
            *(offset, int(close), data),
        )
        return _state(await self._ask(frames.WRITE, payload, _LONGEST + TIMEOUT))

    async def input(
        self,
        execution_id: str,
        *,
        writer: str = "",
        take_over: bool = False,
        wait: float = 0.0,
    ) -> InputState:
        """How far it is. A `writer` holds it for 15 s from now on, or from its last write.

        With `wait` this returns after so many seconds, 5 at most, or when the execution ends,
        or raises INPUT_HELD when another writer took the input over.
        """
        names = execution_id.encode(), writer.encode(), int(take_over)
        payload = frames.pack(*names, int(wait * 1000))
        return _state(await self._ask(frames.INPUT, payload, wait + TIMEOUT))

    async def release_input(self, execution_id: str, writer: str) -> None:
        """The writer does not hold it any more, if it did."""
        await self._ask(frames.RELEASE, frames.pack(execution_id.encode(), writer.encode()))

    async def resize(self, execution_id: str, rows: int, cols: int) -> None:
        """Give the terminal another size. TERMINAL_NONE."""
        await self._ask(frames.RESIZE, frames.pack(execution_id.encode(), rows, cols))


def _state(reply: Reply) -> InputState:
    taken, closed = numbers(reply, 2)
    return InputState(min(max(0, taken), MOST_INPUT), bool(closed))
