"""`cove attach`, and `cove exec -i -t`."""

import argparse
import asyncio
import signal
from contextlib import AsyncExitStack, nullcontext, suppress
from typing import Final

from cove.attachment import Attachment
from cove.cli import terminal
from cove.cli.console import Console
from cove.cli.following import Following
from cove.client import Client
from cove.executions import Execution
from cove.executor.v1.executor_pb2 import ExecutionSpec
from cove.status import CoveError, FailedPrecondition

_DETACHED: Final = 0


async def attach(cove: Client, options: argparse.Namespace, console: Console) -> int:
    execution = cove.workspaces.named(options.workspace).executions.named(options.execution)
    spec = (await execution.refresh()).spec
    has_input = spec.stdin == ExecutionSpec.STDIN_OPEN
    return await sit(
        execution,
        console,
        workspace=options.workspace,
        from_offset=-options.tail,
        read_only=options.read_only or not has_input,
        take_over=options.take_over,
        keys=options.detach_keys,
    )


async def sit(
    execution: Execution,
    console: Console,
    *,
    workspace: str,
    from_offset: int = 0,
    read_only: bool = False,
    take_over: bool = False,
    keys: bytes,
) -> int:
    """Pass on what is typed, and show what comes, until the command ends or the person leaves."""
    seat = await execution.attach(from_offset, read_only=read_only, take_over=take_over)
    again = f"cove attach {workspace} {execution.id}"
    following = Following(execution, console, again, looks_on=read_only)
    descriptor = terminal.standard_input()
    on_terminal = seat.execution.spec.HasField("terminal")
    at_terminal = on_terminal and terminal.is_terminal(descriptor)
    raw = terminal.raw(descriptor, console, keys=not read_only) if at_terminal else nullcontext()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(seat)
        stack.enter_context(raw)
        if not read_only:
            typing = _type(seat, descriptor, following, keys if at_terminal else b"")
            stack.push_async_callback(_end, asyncio.create_task(typing))
        if at_terminal and not read_only:
            stack.push_async_callback(_end, asyncio.create_task(_fit(seat)))
        return await following.follow(seat.events())


async def _type(seat: Attachment, descriptor: int, following: Following, keys: bytes) -> None:
    watched = terminal.Keys(keys)
    on_terminal = seat.execution.spec.HasField("terminal")
    writes = True
    while data := await terminal.read(descriptor):
        data, leaves = watched.typed(data)
        if data and writes:
            try:
                await seat.write(data)
            except FailedPrecondition:  # Which the events tell of; leaving is still possible.
                writes = False
                if not keys:
                    return
        if leaves:
            following.leave(_DETACHED)
            return
    if writes and not on_terminal:
        with suppress(FailedPrecondition):
            await seat.close_input()


async def _fit(seat: Attachment) -> None:
    """Have the terminal there be as large as the one here, always."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    changed.set()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            await changed.wait()
            changed.clear()
            with suppress(CoveError):  # It has ended, or looks as it did.
                await seat.resize(*terminal.size())
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
