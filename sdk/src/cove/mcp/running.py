"""`workspace_exec`, `workspace_output`."""

import asyncio
from contextlib import suppress
from typing import Final

from pydantic import BaseModel, Field

from cove.ending import limit
from cove.executions import Execution, spec
from cove.executor.v1 import executor_pb2
from cove.mcp.executions import State, state_of
from cove.mcp.fields import (
    LARGEST,
    Env,
    ExecutionId,
    MaxBytes,
    WaitSeconds,
    WorkspaceId,
)
from cove.mcp.page import Page
from cove.mcp.tool import Answer, Arguments, Call, Tool
from cove.result import exit_status

_LONGEST_TIMEOUT: Final = 7 * 86400


class Exec(Arguments):
    """Run a shell command in a workspace, in a sandbox without network, and return its exit
    status and output. It waits for the end up to wait_seconds; a command that takes longer goes
    on, and the answer says how to read on: workspace_output. Start what never ends, say a server,
    with wait_seconds 0. Output over max_bytes is cut in the middle; workspace_output has all of
    it. The command reads no input. Cancelling this call does not end the command:
    workspace_executions lists it, workspace_kill ends it."""

    workspace: WorkspaceId
    command: str = Field(
        min_length=1,
        max_length=100_000,
        description="Shell command for `sh -c`; several lines will do.",
    )
    cwd: str = Field(
        default="",
        max_length=4096,
        description="Working directory, relative to the workspace; default its root.",
    )
    env: Env = Field(default_factory=dict, description="Further environment variables.")
    timeout_seconds: int = Field(
        default=3600,
        ge=1,
        le=_LONGEST_TIMEOUT,
        description="After so long the command, and all it started, is ended.",
    )
    wait_seconds: WaitSeconds = 45
    max_bytes: MaxBytes = 30_000
    execution: str = Field(
        default="",
        pattern="^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$",
        description="Id of your choosing: the same id runs a command once, however often this is "
        "called. Default: one is made.",
    )


class Output(Arguments):
    """Read the output of an execution from a byte offset on, and how it ended. Call it again with
    next_offset for the rest. With wait_seconds it waits for more until the command ends, that
    time is over, or max_bytes have come. Standard output and error are in the order of writing."""

    workspace: WorkspaceId
    execution: ExecutionId
    offset: int = Field(
        default=0,
        ge=-LARGEST,
        le=LARGEST,
        description="First byte to return; negative: so many bytes before the end.",
    )
    wait_seconds: WaitSeconds = 0
    max_bytes: MaxBytes = 30_000


class Ran(BaseModel):
    """An execution, and a part of its output."""

    workspace: str
    execution: str
    state: State
    exit_status: int | None = Field(
        description="As a shell has it: 124 after its timeout, 128+n after signal n. None: it runs."
    )
    ended_by: str = Field(description="What ended it other than itself, for example its timeout.")
    output: str = Field(description="UTF-8; what is not is replaced.")
    offset: int = Field(description="Of the first byte of the output.")
    next_offset: int = Field(description="Where to read on.")
    output_bytes: int = Field(description="How much output there is by now.")
    more: bool = Field(description="Whether output was left out here.")


async def run(call: Call, asked: Exec) -> Answer:
    workspace = call.cove.workspaces.named(asked.workspace)
    what = spec(
        (),
        script=asked.command,
        cwd=asked.cwd,
        env=asked.env,
        timeout=asked.timeout_seconds,
        merge_stderr=True,
    )
    execution = await workspace.executions.start(what, asked.execution)
    if asked.wait_seconds:
        with suppress(TimeoutError):
            async with asyncio.timeout(asked.wait_seconds):
                await execution.wait()
    total = (await execution.refresh()).output_bytes
    if total <= asked.max_bytes:
        page = await Page.read(execution, 0, asked.max_bytes)
        return _answer(asked.workspace, execution, page, page.text)
    head = await Page.read(execution, 0, asked.max_bytes // 3)
    last = asked.max_bytes - asked.max_bytes // 3
    tail = await Page.read(execution, total - last, last)
    cut = (
        f"\n[{tail.begin - head.end} bytes are left out here: workspace_output with offset "
        f"{head.end} has them]\n"
    )
    return _answer(asked.workspace, execution, head, f"{head.text}{cut}{tail.text}")


async def output(call: Call, asked: Output) -> Answer:
    execution = call.cove.workspaces.named(asked.workspace).executions.named(asked.execution)
    page = await Page.read(execution, asked.offset, asked.max_bytes, wait=asked.wait_seconds)
    await execution.refresh()
    return _answer(asked.workspace, execution, page, page.text)


def _answer(workspace: str, execution: Execution, page: Page, text: str) -> Answer:
    message = execution.message
    ended = message.HasField("exit")
    data = Ran(
        workspace=workspace,
        execution=execution.id,
        state=state_of(message),
        exit_status=exit_status(message.exit) if ended else None,
        ended_by=_ended_by(message.exit) if ended else "",
        output=text,
        offset=max(page.begin, 0),
        next_offset=max(page.end, 0),
        output_bytes=message.output_bytes,
        more=page.end < message.output_bytes,
    )
    return Answer(_says(data), data, contents=[text] if text else [])


def _says(data: Ran) -> str:
    """How it is, and how to go on."""
    where = f'workspace "{data.workspace}", execution "{data.execution}"'
    if data.state != "ended":
        says = (
            f"still running after this call: {where}. workspace_output with offset "
            f"{data.next_offset} and wait_seconds waits for more; workspace_kill ends it."
        )
    else:
        says = f"exit status {data.exit_status}"
        says += f" (ended by {data.ended_by})" if data.ended_by else ""
        says += f": {where}."
    if not data.output:
        return f"{says} No output{' yet' if data.state != 'ended' else ' here'}."
    if data.more and data.state == "ended":
        says += f" There is more output: workspace_output with offset {data.next_offset}."
    return f"{says} Output, bytes from {data.offset} of {data.output_bytes}:"


def _ended_by(end: executor_pb2.Exit) -> str:
    match end.WhichOneof("reason"):
        case "signal":
            return f"signal {end.signal.number}"
        case "timed_out" | "limit":
            return limit(end)
        case "cancelled":
            return f"a call of {end.cancelled.by}"
        case "lost":
            return f"what nobody saw: {end.lost.reason}"
        case _:
            return ""


TOOLS: Final = (
    Tool(
        name="workspace_exec",
        title="Run a command",
        arguments=Exec,
        run=run,
        answer=Ran,
        destroys=True,
    ),
    Tool(
        name="workspace_output",
        title="Read output of a command",
        arguments=Output,
        run=output,
        answer=Ran,
        reads=True,
    ),
)
