"""`workspace_executions`, `workspace_kill`."""

import heapq
import signal
from typing import Final, Literal

from pydantic import BaseModel, Field

from cove.cli.console import when
from cove.executor.v1 import executor_pb2
from cove.mcp.fields import ExecutionId, Limit, Offset, WorkspaceId, filter_, listed
from cove.mcp.tool import Answer, Arguments, Call, Tool
from cove.result import exit_status

_COMMAND: Final = 200

State = Literal["starting", "running", "ended"]


class ListExecutions(Arguments):
    """List the commands of a workspace, newest first: id, state, exit status, command."""

    workspace: WorkspaceId
    filter: str = filter_("state = RUNNING OR exit.code != 0")
    limit: Limit = 20
    offset: Offset = 0


class Kill(Arguments):
    """End a command: TERM and INT ask it and its process group to end, KILL ends it and all it
    started at once."""

    workspace: WorkspaceId
    execution: ExecutionId
    signal: Literal["TERM", "INT", "KILL"] = Field(
        default="TERM", description="TERM first; KILL for what does not end."
    )


class Listed(BaseModel):
    """One execution."""

    execution: str
    state: State
    exit_status: int | None
    start_time: str
    output_bytes: int
    command: str = Field(description=f"Its first {_COMMAND} characters.")


class Listing(BaseModel):
    """A page of executions."""

    executions: list[Listed]
    next_offset: int | None = Field(description="Where the next page begins; None: no more.")


def state_of(message: executor_pb2.Execution) -> State:
    """How far it is, in a word."""
    match message.state:
        case executor_pb2.Execution.STATE_ENDED:
            return "ended"
        case executor_pb2.Execution.STATE_RUNNING:
            return "running"
        case _:
            return "starting"


async def executions(call: Call, asked: ListExecutions) -> Answer:
    workspace = call.cove.workspaces.named(asked.workspace)
    # Only as many are kept as are asked for, and one that tells whether there are more.
    wanted = asked.offset + asked.limit + 1
    newest: list[tuple[int, str, executor_pb2.Execution]] = []
    async for each in workspace.executions.list(filter=asked.filter):
        entry = (each.message.create_time.ToNanoseconds(), each.id, each.message)
        if len(newest) < wanted:
            heapq.heappush(newest, entry)
        else:
            heapq.heappushpop(newest, entry)
    found = [message for _, _, message in sorted(newest, key=lambda it: it[:2], reverse=True)]
    more = len(found) == wanted
    shown = [_listed(message) for message in found[asked.offset : asked.offset + asked.limit]]
    data = Listing(executions=shown, next_offset=asked.offset + asked.limit if more else None)
    rows = [
        f"{each.execution} {each.state}"
        f"{'' if each.exit_status is None else f' {each.exit_status}'}"
        f" {each.start_time} {each.output_bytes} bytes: {each.command}"
        for each in shown
    ]
    return Answer(listed(rows, "executions", data.next_offset), data)


def _listed(message: executor_pb2.Execution) -> Listed:
    command = message.spec.script or " ".join(message.spec.argv)
    return Listed(
        execution=message.name.rpartition("/")[2],
        state=state_of(message),
        exit_status=exit_status(message.exit) if message.HasField("exit") else None,
        start_time=when(message.start_time),
        output_bytes=message.output_bytes,
        command=" ".join(command.split())[:_COMMAND],
    )


async def kill(call: Call, asked: Kill) -> Answer:
    execution = call.cove.workspaces.named(asked.workspace).executions.named(asked.execution)
    number = signal.Signals[f"SIG{asked.signal}"]
    await execution.signal(number, "tree" if asked.signal == "KILL" else "group")
    return Answer(
        f"{asked.signal} was sent to {asked.execution}. workspace_output with wait_seconds tells "
        "how it ended."
    )


TOOLS: Final = (
    Tool(
        name="workspace_executions",
        title="List commands",
        arguments=ListExecutions,
        run=executions,
        answer=Listing,
        reads=True,
    ),
    Tool(
        name="workspace_kill",
        title="End a command",
        arguments=Kill,
        run=kill,
        destroys=True,
        repeats=True,
    ),
)
