"""Shows what a command writes until it ends, or somebody leaves."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Final, TypeAlias

from cove.attachment import AttachEvent, InputState
from cove.cli.console import Console, printable
from cove.cli.seen import Seen
from cove.ending import limit, remarks
from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk, Exit, Gap, Preview
from cove.gateway.v1 import gateway_pb2 as pb
from cove.output import Event
from cove.result import exit_status
from cove.status import CoveError

_LEFT: Final = 128
_STILL_RUNNING: Final = 0

Events: TypeAlias = AsyncGenerator[Event, None] | AsyncGenerator[AttachEvent, None]


class Following:
    """`again` is the command line by which a person comes back.

    Who only `looks_on` sends the command no signal either.
    """

    def __init__(
        self, execution: Execution, console: Console, again: str, *, looks_on: bool = False
    ) -> None:
        self._looks_on = looks_on
        self._execution = execution
        self._console = console
        self._again = again
        self._showing: asyncio.Task[int] | None = None
        self._passing: list[asyncio.Task[None]] = []
        self._left: list[int] = []

    def leave(self, status: int) -> None:
        """End this and not the command; `status` is the exit status."""
        self._left.append(status)
        if self._showing:
            self._showing.cancel()

    async def follow(self, events: Events) -> int:
        """Returns the exit status. The first SIGINT goes to the command, the second one to us."""
        loop = asyncio.get_running_loop()
        self._showing = asyncio.create_task(show(events, self._console))
        ends = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        for number in ends:
            loop.add_signal_handler(number, self.leave, _LEFT + number)
        try:
            return await self._showing
        except BrokenPipeError:  # A command of the shell would be ended by it, too.
            if not self._looks_on:
                await self._pass(signal.SIGTERM)
            raise
        except asyncio.CancelledError:
            if not self._left:
                raise
            self._console.note(f"left; it goes on: {self._again}")
            return self._left[0]
        finally:
            for number in (signal.SIGINT, *ends):
                loop.remove_signal_handler(number)
            for task in self._passing:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    def _interrupted(self) -> None:
        if self._passing or self._looks_on:
            self.leave(_LEFT + signal.SIGINT)
        else:
            self._passing.append(asyncio.create_task(self._pass(signal.SIGINT)))

    async def _pass(self, number: signal.Signals) -> None:
        try:
            await self._execution.signal(number)
        except CoveError as error:
            if error.reason != "ERROR_REASON_EXECUTION_ENDED":
                self._console.failed(error)


async def show(events: Events, console: Console) -> int:
    """Write the output as it comes; returns the exit status."""
    seen = Seen(console)
    async with aclosing(events):
        async for event in events:
            if console.as_json:
                console.json(_as_message(event))
            match event:
                case Chunk() | Preview() if not console.as_json:
                    to_error = event.stream == Chunk.STREAM_STDERR
                    write = console.write_error if to_error else console.write
                    new = seen.chunk(event) if isinstance(event, Chunk) else seen.preview(event)
                    await asyncio.to_thread(write, new)
                case Gap() if not console.as_json:
                    missing = event.to - getattr(event, "from")
                    reason = Gap.Reason.Name(event.reason).removeprefix("REASON_").lower()
                    console.note(f"[{missing} bytes of output are missing: {reason}]")
                case InputState() if event.lost and not console.as_json:
                    console.note("[another one writes now; this one looks on]")
                case Exit():
                    if not console.as_json:
                        tell_end(event, console)
                    return exit_status(event)
    return _STILL_RUNNING


def _as_message(event: Event | AttachEvent) -> pb.AttachResponse | pb.ReadOutputResponse:
    match event:
        case Preview():
            return pb.ReadOutputResponse(preview=event)
        case Chunk():
            return pb.AttachResponse(chunk=event)
        case Gap():
            return pb.AttachResponse(gap=event)
        case Exit():
            return pb.AttachResponse(exit=event)
        case _:
            return pb.AttachResponse(input=event)


def tell_end(end: Exit, console: Console) -> None:
    """Say how it ended, where the exit status alone could be the command's own."""
    match end.WhichOneof("reason"):
        case "signal":
            console.note(f"cove: ended by {_signal_name(end.signal.number)}")
        case "timed_out" | "limit":
            console.note(f"cove: ended by {limit(end)}")
        case "cancelled":
            console.note(f"cove: cancelled by {printable(end.cancelled.by)}")
        case "lost":
            console.note(f"cove: its end was lost: {printable(end.lost.reason)}")
    for remark in remarks(end):
        console.note(f"cove: {remark}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
