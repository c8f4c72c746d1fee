"""Much input, written piece by piece by one writer, who lets it go at the end."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

_PIECE: Final = 256 << 10
"""Bytes of one call."""
_RENEW: Final = 5.0
"""Seconds after which a writer that has nothing to write says that it is there."""

_letting_go: Final[set[asyncio.Task[None]]] = set()


class Feed:
    """Within the block the input is held. `write` is WriteInput, given the fields of its request.

    Raises what WriteInput does.
    """

    def __init__(
        self, write: Callable[..., Awaitable[Any]], offset: int, writer: str, *, take_over: bool
    ) -> None:
        self._write = write
        self._at = offset
        self._writer = writer or secrets.token_hex(8)
        self._take_over = take_over
        self.state: Any = None
        """The last answer."""

    async def __aenter__(self) -> Self:
        await self._ask(take_over=self._take_over)
        return self

    async def __aexit__(self, *_: object) -> None:
        # Whoever waits for this may be cancelled already.
        task = asyncio.create_task(self._let_go())
        _letting_go.add(task)
        task.add_done_callback(_letting_go.discard)
        await asyncio.shield(task)

    async def put(self, data: bytes, *, at: int | None = None, close: bool = False) -> None:
        """Write the next piece, or the one at an offset. Returns when the command has it."""
        self._at = self._at if at is None else at
        end = self._at + len(data)
        while True:
            piece = data[len(data) - (end - self._at) :][:_PIECE]
            last = self._at + len(piece) == end
            await self._ask(data=piece, close=close and last)
            self._at = max(self._at, min(self.state.offset, end))
            if self._at == end and (self.state.closed or not close):
                return

    async def next(self, waiting: Awaitable[T]) -> T:
        """Wait for what is to be written next, and hold the input meanwhile."""
        task = asyncio.ensure_future(waiting)
        try:
            while not (await asyncio.wait((task,), timeout=_RENEW))[0]:
                await self._ask()
            return task.result()
        finally:
            task.cancel()

    async def _ask(self, **fields: Any) -> None:
        self.state = await self._write(offset=self._at, writer=self._writer, **fields)

    async def _let_go(self) -> None:
        try:
            await self._write(offset=0, writer=self._writer, release=True)
        except Exception:  # The input is let go by itself after a while.
            return
