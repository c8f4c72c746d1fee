"""`cove exec logs ps wait kill`."""

import argparse
import asyncio
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Final

from cove.cli.commands.arguments import pairs
from cove.cli.console import Console, age, printable
from cove.cli.errors import UsageError
from cove.cli.secrets import given
from cove.cli.standard_input import waiting_input
from cove.client import Client
from cove.executions import Execution, exit_status
from cove.executor.v1 import executor_pb2
from cove.executor.v1.executor_pb2 import Chunk, Exit, Gap
from cove.gateway.v1 import gateway_pb2 as pb
from cove.output import Event
from cove.status import CoveError

_LEFT: Final = 128
_STILL_RUNNING: Final = 0
_NO_PROGRAM: Final = {
    "ERROR_REASON_PROGRAM_NOT_FOUND": 127,
    "ERROR_REASON_PROGRAM_NOT_EXECUTABLE": 126,
}
"""Exit statuses that a shell gives for the same."""


async def execute(cove: Client, options: argparse.Namespace, console: Console) -> int:
    if options.argv and options.script:
        raise UsageError("a command and --script", "Give one of the two.")
    if not options.argv and not options.script:
        raise UsageError(
            "no command to run",
            "cove exec WORKSPACE COMMAND, or --script TEXT; `cove help exec` says more.",
        )
    warned = _warn_of_input(console)
    try:
        execution = await cove.workspaces.named(options.workspace).start(
            *options.argv,
            script=options.script,
            cwd=options.cwd,
            env=pairs(options.env, "--env"),
            timeout=options.timeout,
            merge_stderr=options.merge_stderr,
            secrets=given(options.secret, options.kept_secret),
            redact=options.redact,
            id=options.id,
        )
    except CoveError as error:
        if status := _NO_PROGRAM.get(error.reason):
            console.failed(error)
            return status
        raise
    if options.detach:
        if console.as_json:
            console.json(execution.message)
        else:
            console.line(execution.id)
        return 0
    if console.as_json:
        console.json(pb.StreamExecutionResponse(execution=execution.message))
    status = await _attended(execution, options.workspace, console)
    if not warned:
        _warn_of_input(console)
    return status


def _warn_of_input(console: Console) -> bool:
    """Say so when something waits on the standard input, which is left unread."""
    waits = waiting_input()
    if waits:
        console.note(
            "warning: the standard input is not passed on to the command: use --script, or copy "
            "a file with `cove cp`; < /dev/null says that nothing is meant"
        )
    return waits


async def _attended(execution: Execution, workspace: str, console: Console) -> int:
    """Follow the output. The first SIGINT goes to the command, the second one only to us."""
    loop = asyncio.get_running_loop()
    showing = asyncio.create_task(_show(execution.output(), console))
    passing: list[asyncio.Task[None]] = []
    left: list[signal.Signals] = []

    def leave(number: signal.Signals) -> None:
        left.append(number)
        showing.cancel()

    def interrupted() -> None:
        if passing:
            leave(signal.SIGINT)
        else:
            passing.append(asyncio.create_task(_pass(signal.SIGINT, execution, console)))

    loop.add_signal_handler(signal.SIGINT, interrupted)
    loop.add_signal_handler(signal.SIGTERM, leave, signal.SIGTERM)
    try:
        return await showing
    except BrokenPipeError:  # A command of the shell would be ended by it, too.
        await _pass(signal.SIGTERM, execution, console)
        raise
    except asyncio.CancelledError:
        if not left:
            raise
        console.note(f"left; it goes on: cove logs -f {workspace} {execution.id}")
        return _LEFT + left[0]
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
        for task in passing:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _pass(number: signal.Signals, execution: Execution, console: Console) -> None:
    try:
        await execution.signal(number)
    except CoveError as error:
        if error.reason != "ERROR_REASON_EXECUTION_ENDED":
            console.failed(error)


async def _show(events: AsyncGenerator[Event, None], console: Console) -> int:
    """Write the output as it comes; returns the exit status."""
    async with aclosing(events):
        async for event in events:
            if console.as_json:
                console.json(_as_message(event))
            match event:
                case Chunk() if not console.as_json:
                    to_error = event.stream == Chunk.STREAM_STDERR
                    write = console.write_error if to_error else console.write
                    await asyncio.to_thread(write, event.data)
                case Gap() if not console.as_json:
                    missing = event.to - getattr(event, "from")
                    reason = Gap.Reason.Name(event.reason).removeprefix("REASON_").lower()
                    console.note(f"[{missing} bytes of output are missing: {reason}]")
                case Exit():
                    if not console.as_json:
                        _tell_end(event, console)
                    return exit_status(event)
    return _STILL_RUNNING


def _as_message(event: Event) -> pb.ReadOutputResponse:
    match event:
        case Chunk():
            return pb.ReadOutputResponse(chunk=event)
        case Gap():
            return pb.ReadOutputResponse(gap=event)
        case Exit():
            return pb.ReadOutputResponse(exit=event)


def _tell_end(end: Exit, console: Console) -> None:
    """Say how it ended, where the exit status alone could be the command's own."""
    match end.WhichOneof("reason"):
        case "signal":
            console.note(f"cove: ended by {_signal_name(end.signal.number)}")
        case "timed_out":
            console.note("cove: ended by its timeout")
        case "limit":
            console.note("cove: ended by the limit of memory")
        case "cancelled":
            console.note(f"cove: cancelled by {printable(end.cancelled.by)}")
        case "lost":
            console.note(f"cove: its end was lost: {printable(end.lost.reason)}")


async def logs(cove: Client, options: argparse.Namespace, console: Console) -> int:
    execution = cove.workspaces.named(options.workspace).executions.named(options.execution)
    offset = -options.tail if options.tail else options.offset
    await _show(execution.output(offset, follow=options.follow), console)
    return 0


async def ps(cove: Client, options: argparse.Namespace, console: Console) -> int:
    workspace = cove.workspaces.named(options.workspace)
    found = [each.message async for each in workspace.executions.list()]
    if console.as_json:
        console.json(pb.ListExecutionsResponse(executions=found))
        return 0
    header = ("ID", "STATE", "STATUS", "AGE", "OUTPUT", "COMMAND")
    console.table(
        header,
        [
            (
                each.name.rpartition("/")[2],
                executor_pb2.Execution.State.Name(each.state).removeprefix("STATE_").lower(),
                str(exit_status(each.exit)) if each.HasField("exit") else "",
                age(each.start_time),
                str(each.output_bytes),
                printable(" ".join(each.spec.argv) or each.spec.script),
            )
            for each in found
        ],
    )
    _processes(found, console)
    return 0


def _processes(found: Sequence[executor_pb2.Execution], console: Console) -> None:
    """What is alive, below the executions."""
    rows = [
        (
            each.name.rpartition("/")[2],
            str(process.pid),
            executor_pb2.Process.State.Name(process.state).removeprefix("STATE_").lower(),
            f"{process.memory_bytes / (1 << 20):.1f} MiB",
            age(process.start_time),
            printable(" ".join(process.argv)),
        )
        for each in found
        for process in each.processes.processes
    ]
    if not rows:
        return
    console.line()
    console.table(("ID", "PID", "STATE", "MEMORY", "AGE", "PROCESS"), rows)
    for each in found:
        more = each.processes.total - len(each.processes.processes)
        if more > 0:
            console.note(f"{each.name.rpartition('/')[2]}: {more} more processes")


async def wait(cove: Client, options: argparse.Namespace, console: Console) -> int:
    execution = cove.workspaces.named(options.workspace).executions.named(options.execution)
    message = await execution.wait()
    if console.as_json:
        console.json(message)
    else:
        _tell_end(message.exit, console)
    return exit_status(message.exit)


async def kill(cove: Client, options: argparse.Namespace, console: Console) -> int:
    execution = cove.workspaces.named(options.workspace).executions.named(options.execution)
    message = await execution.signal(options.signal, options.scope)
    if console.as_json:
        console.json(message)
    return 0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
