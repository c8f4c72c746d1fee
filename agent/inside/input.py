"""What is written to a command: its standard input, or the keys of its terminal.

No byte is kept here: what the kernel does not take is left with the client, which asks again
when there is room. One writer at a time may hold the input; who says nothing of itself writes
as long as nobody holds it. Time is monotonic seconds, passed in.
"""

import os

from agent import frames
from agent.inside.connection import Connection
from agent.inside.means import resize
from agent.inside.spawn import SpawnError

_LEASE = 15.0
"""Seconds for which a writer that says nothing holds the input."""
_LONGEST = 5.0
"""Seconds for which a request waits."""
_LOOK = 0.05
"""Seconds between two tries where the kernel does not tell of room."""
_MOST_WAITING = 64

Waiter = tuple[Connection, int]
"""A connection and the number of its request."""


class Input:
    """The input of one execution, until that has ended. Owns the descriptor."""

    def __init__(self, descriptor: int, *, terminal: bool) -> None:
        self.descriptor = descriptor
        self.closed = False
        self.taken = 0
        """Bytes written so far."""
        self._terminal = terminal
        self._writer = b""
        self._until = 0.0
        self._for_room: list[tuple[float, bytes, Waiter]] = []
        self._for_news: list[tuple[float, bytes, Waiter]] = []
        """Those that wait: until when, which writer, whom to tell."""

    @property
    def waiting_for_room(self) -> bool:
        return bool(self._for_room)

    def write(self, waiter: Waiter, fields: list[bytes], now: float) -> None:
        """Take what is new and fits, and answer how far it came.

        Where nothing fits the answer waits for room. Raises SpawnError.
        """
        writer, take_over, offset, close, data = fields
        self._claim(writer, now, take_over=take_over != b"0")
        if int(offset) > self.taken:
            raise SpawnError(frames.INPUT_GAP, 0, str(self.taken))
        fresh = data[self.taken - int(offset) :]
        if fresh and not self._put(fresh):
            if len(self._for_room) < _MOST_WAITING:
                patience = _LOOK if self._terminal else _LONGEST
                self._for_room.append((now + patience, writer, waiter))
                return
        elif int(offset) + len(data) <= self.taken and close != b"0" and not self._terminal:
            self.shut()
        self._tell(waiter)

    def hold(self, waiter: Waiter, fields: list[bytes], now: float) -> None:
        """Answer how far it is, at once or when somebody else becomes the writer.

        With the name of a writer, that one holds it from now on. Raises SpawnError.
        """
        writer, take_over, wait = fields
        if writer:
            self._claim(writer, now, take_over=take_over != b"0")
        if wait == b"0" or len(self._for_news) >= _MOST_WAITING:
            self._tell(waiter)
            return
        until = now + min(int(wait) / 1000, _LONGEST)
        self._for_news.append((until, writer, waiter))

    def release(self, writer: bytes) -> None:
        """The writer holds it no longer, if it did."""
        if writer == self._writer:
            self._writer, self._until = b"", 0.0

    def resize(self, rows: int, cols: int) -> None:
        """Raises SpawnError where there is no terminal."""
        if not self._terminal or self.closed:
            raise SpawnError(frames.TERMINAL_NONE, 0, "it has no terminal")
        resize(self.descriptor, rows, cols)

    def deadline(self) -> float:
        """When `tick` must be called at the latest; 0 is never."""
        return min((each[0] for each in (*self._for_room, *self._for_news)), default=0.0)

    def tick(self, now: float, *, room: bool = False) -> None:
        """Answer those who have waited for long enough, or for the room that there is."""
        told = [each for each in self._for_room if room or now >= each[0]]
        told += [each for each in self._for_news if now >= each[0]]
        self._for_room = [each for each in self._for_room if each not in told]
        self._for_news = [each for each in self._for_news if each not in told]
        for _, _, waiter in told:
            self._tell(waiter)

    def shut(self) -> None:
        """Nothing more is written; the command reads the end. Answers all who wait."""
        if not self.closed:
            self.closed = True
            os.close(self.descriptor)
        waiting = self._for_room + self._for_news
        self._for_room, self._for_news = [], []
        for _, _, waiter in waiting:
            self._tell(waiter)

    def _put(self, fresh: bytes) -> int:
        if self.closed:
            raise SpawnError(frames.INPUT_CLOSED, 0, str(self.taken))
        try:
            put = os.write(self.descriptor, fresh)
        except BlockingIOError:
            return 0
        except OSError as error:  # Nobody is there who could read it.
            self.shut()
            raise SpawnError(frames.INPUT_CLOSED, error.errno or 0, str(self.taken)) from error
        self.taken += put
        return put

    def _claim(self, writer: bytes, now: float, *, take_over: bool) -> None:
        held = self._writer and now < self._until
        if held and writer != self._writer:
            if not take_over:
                raise SpawnError(frames.INPUT_HELD, 0, "another writer has it")
            self._lose(self._writer)
        self._writer, self._until = writer, now + _LEASE

    def _lose(self, writer: bytes) -> None:
        """Tell a writer that it has lost the input."""
        refusal = frames.pack(frames.INPUT_HELD, 0, b"another writer took it over")
        lost = [each for each in self._for_room + self._for_news if each[1] == writer]
        self._for_room = [each for each in self._for_room if each not in lost]
        self._for_news = [each for each in self._for_news if each not in lost]
        for _, _, (client, number) in lost:
            client.reply(frames.ERROR, number, refusal)

    def _tell(self, waiter: Waiter) -> None:
        client, number = waiter
        client.reply(frames.OK, number, frames.pack(self.taken, int(self.closed)))


REQUESTS = (frames.WRITE, frames.INPUT, frames.RELEASE, frames.RESIZE)


def answer(found: Input | None, waiter: Waiter, kind: int, fields: list[bytes], now: float) -> None:
    """Do what a request about an input asks, and answer it. Raises SpawnError, ValueError."""
    if found is None:
        code = frames.TERMINAL_NONE if kind == frames.RESIZE else frames.INPUT_NONE
        raise SpawnError(code, 0, "it was started without")
    if kind == frames.WRITE:
        found.write(waiter, fields, now)
        return
    if kind == frames.INPUT:
        found.hold(waiter, fields, now)
        return
    if kind == frames.RELEASE:
        (writer,) = fields
        found.release(writer)
    else:
        rows, cols = fields
        found.resize(int(rows), int(cols))
    client, number = waiter
    client.reply(frames.OK, number, b"")
