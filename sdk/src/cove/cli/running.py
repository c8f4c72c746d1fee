"""`cove exec logs ps wait kill`."""

import argparse
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from cove.cli import terminal
from cove.cli.attaching import sit
from cove.cli.commands.arguments import pairs
from cove.cli.console import Console, age, printable
from cove.cli.errors import UsageError
from cove.cli.following import Following, show, tell_end
from cove.cli.secrets import given
from cove.cli.standard_input import waiting_input
from cove.client import Client
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.result import exit_status
from cove.status import CoveError

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
    _check_terminal(options, console)
    warned = options.interactive or _warn_of_input(console)
    env = pairs(options.env, "--env")
    if options.tty and "TERM" in os.environ:
        env = {"TERM": os.environ["TERM"], **env}
    try:
        execution = await cove.workspaces.named(options.workspace).start(
            *options.argv,
            script=options.script,
            cwd=options.cwd,
            env=env,
            timeout=options.timeout,
            merge_stderr=options.merge_stderr,
            idle_output_timeout=options.idle_timeout,
            output_limit=options.output_limit,
            limits=_limits(options),
            stdin=options.interactive,
            terminal=terminal.size() if options.tty else None,
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
    if options.interactive:
        keys = options.detach_keys
        return await sit(execution, console, workspace=options.workspace, keys=keys)
    again = f"cove logs -f {options.workspace} {execution.id}"
    output = execution.output(previews=console.is_terminal)
    status = await Following(execution, console, again).follow(output)
    if not warned:
        _warn_of_input(console)
    return status


def _limits(options: argparse.Namespace) -> executor_pb2.ExecutionLimits | None:
    limits = executor_pb2.ExecutionLimits(
        memory_bytes=options.memory,
        processes=options.pids,
        milli_cpus=round(options.cpus * 1000),
        open_files=options.open_files,
    )
    if options.cpu_time is not None:
        limits.cpu_time.FromTimedelta(timedelta(seconds=options.cpu_time))
    return limits if limits.ListFields() else None


def _check_terminal(options: argparse.Namespace, console: Console) -> None:
    """Raises `UsageError` when there is no person at a terminal for `-it`."""
    if not (options.interactive and options.tty) or options.detach:
        return
    if console.as_json:
        raise UsageError("-t and --json", "A terminal is for people: leave one of them out.")
    if not terminal.is_terminal(terminal.standard_input()):
        raise UsageError(
            "-t, and the standard input is no terminal", "Use -i alone for a pipe or a file."
        )


def _warn_of_input(console: Console) -> bool:
    """Say so when something waits on the standard input, which is left unread."""
    waits = waiting_input()
    if waits:
        console.note(
            "warning: the standard input is not passed on to the command: -i does that; "
            "< /dev/null says that nothing is meant"
        )
    return waits


async def logs(cove: Client, options: argparse.Namespace, console: Console) -> int:
    execution = cove.workspaces.named(options.workspace).executions.named(options.execution)
    offset = -options.tail if options.tail else options.offset
    previews = console.is_terminal
    await show(execution.output(offset, follow=options.follow, previews=previews), console)
    return 0


async def ps(cove: Client, options: argparse.Namespace, console: Console) -> int:
    workspace = cove.workspaces.named(options.workspace)
    found = [
        each.message
        async for each in workspace.executions.list(
            filter=options.filter, order_by=options.order_by
        )
    ]
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
        tell_end(message.exit, console)
    return exit_status(message.exit)


async def kill(cove: Client, options: argparse.Namespace, console: Console) -> int:
    execution = cove.workspaces.named(options.workspace).executions.named(options.execution)
    message = await execution.signal(options.signal, options.scope)
    if console.as_json:
        console.json(message)
    return 0
