"""Commands in a workspace."""

import signal as signals
from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from typing import Final, Literal

from cove.attachment import Attachment
from cove.connection import Connection, request_id
from cove.durations import duration
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub
from cove.input import Input
from cove.output import Event, read_output
from cove.result import Result
from cove.usage import watch_usage

Scope = Literal["process", "group", "tree"]

_STDIN: Final = {
    False: executor_pb2.ExecutionSpec.STDIN_UNSPECIFIED,
    True: executor_pb2.ExecutionSpec.STDIN_OPEN,
}
_SCOPES: Final = {
    "process": executor_pb2.SIGNAL_SCOPE_PROCESS,
    "group": executor_pb2.SIGNAL_SCOPE_GROUP,
    "tree": executor_pb2.SIGNAL_SCOPE_TREE,
}


def spec(
    argv: tuple[str, ...],
    *,
    script: str = "",
    cwd: str = "",
    env: Mapping[str, str] | None = None,
    timeout: timedelta | float | None = None,
    merge_stderr: bool = False,
    stdin: bool = False,
    terminal: tuple[int, int] | None = None,
    idle_output_timeout: timedelta | float | None = None,
    output_limit: int = 0,
    limits: executor_pb2.ExecutionLimits | None = None,
    secrets: Mapping[str, str | None] | None = None,
    redact: bool = False,
) -> executor_pb2.ExecutionSpec:
    """What to run: `argv`, or `script` for `sh -c`. Timeouts may be in seconds.

    `secrets` are variables by name; None stands for what the server keeps under it.
    """
    return executor_pb2.ExecutionSpec(
        argv=argv,
        script=script,
        cwd=cwd,
        env=env,
        merge_stderr=merge_stderr,
        timeout=duration(timeout),
        idle_output_timeout=duration(idle_output_timeout),
        output_limit=output_limit,
        limits=limits,
        secrets={name: value or "" for name, value in (secrets or {}).items()},
        redact=redact,
        stdin=_STDIN[stdin],
        terminal=executor_pb2.Terminal(rows=terminal[0], cols=terminal[1]) if terminal else None,
    )


class Execution:
    """One command of a workspace. It goes on whether or not anyone watches.

    All calls raise `NotFound` when it is deleted, or its retention is over.
    """

    def __init__(self, connection: Connection, message: executor_pb2.Execution) -> None:
        self._connection = connection
        self._stub = ExecutionServiceStub(connection.channel)
        self.message = message
        """As last seen."""
        self._input = Input(connection, self._given)

    @property
    def name(self) -> str:
        """`workspaces/{id}/executions/{id}`."""
        return self.message.name

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]

    def __repr__(self) -> str:
        return f"<Execution {self.name}>"

    async def refresh(self) -> executor_pb2.Execution:
        """Ask how far it is."""
        request = pb.GetExecutionRequest(name=self.name)
        self.message = (await self._connection.unary(self._stub.GetExecution, request)).execution
        return self.message

    async def wait(self) -> executor_pb2.Execution:
        """Wait for its end, at most a day; then `DeadlineExceeded` ends the wait only."""
        request = pb.WaitExecutionRequest(name=self.name)
        self.message = (await self._connection.unary(self._stub.WaitExecution, request)).execution
        return self.message

    def output(
        self, from_offset: int = 0, *, follow: bool = True, previews: bool = False
    ) -> AsyncGenerator[Event, None]:
        """Its output from a byte on, as it comes, and at last its `Exit`.

        After a drop it goes on at the byte where it was: nothing comes twice, and what is
        missing is a `Gap`. A negative offset counts from the end; one beyond it raises
        `OutOfRange`. Without `follow` it ends where the output ends now, without an `Exit` when
        the command still runs.

        Where the driver has no `live_output` all of it comes at the end. With `previews` there is
        a `Preview` of what is seen of it meanwhile, which is none of it, and may lack parts.
        """
        return read_output(
            self._connection, self.name, from_offset, follow=follow, previews=previews
        )

    async def write(
        self,
        data: bytes | str,
        *,
        offset: int | None = None,
        close: bool = False,
        writer: str = "",
        take_over: bool = False,
    ) -> int:
        """Write to the input of a command that was started with `stdin` or a `terminal`.

        Returns how many bytes of input it has then. Waits while it does not read. Each byte comes
        exactly once, by its `offset`, the number of bytes before it: so a write may be repeated.
        By default it is right after the last write here, at first after all that came before.
        With `close` the command reads the end of its input after it.

        A `writer` holds the input for 15 s after each write: others are refused meanwhile, unless
        they say `take_over`. Raises `FailedPrecondition` for that, and when there is no input or
        it was closed; `OutOfRange` when bytes before the offset are missing.
        """
        raw = data.encode() if isinstance(data, str) else data
        return await self._input.write(
            self.name, raw, offset=offset, close=close, writer=writer, take_over=take_over
        )

    async def _given(self) -> int:
        return (await self.refresh()).input_bytes

    async def resize(self, rows: int, cols: int) -> None:
        """Give its terminal another size. Raises `FailedPrecondition` when it has none."""
        request = pb.ResizeTerminalRequest(
            name=self.name,
            terminal=executor_pb2.Terminal(rows=rows, cols=cols),
            request_id=request_id(),
        )
        await self._connection.unary(self._stub.ResizeTerminal, request)

    async def attach(
        self, from_offset: int = 0, *, read_only: bool = False, take_over: bool = False
    ) -> Attachment:
        """Sit before it: its output from a byte on, and its input, in one.

        Any number may look on with `read_only`; one at a time may write, and holds the input until
        it leaves. Raises `FailedPrecondition` when another one does, unless `take_over`, and when
        it has no input.
        """
        seat = Attachment(
            self._connection, self.name, from_offset, read_only=read_only, take_over=take_over
        )
        await seat.open()
        return seat

    async def signal(
        self, signal: int | signals.Signals, scope: Scope = "group"
    ) -> executor_pb2.Execution:
        """Send a signal to it: to its process, its process group, or all that it started.

        SIGKILL to the `tree` returns when nothing is left. Raises `FailedPrecondition` when
        nothing is there to signal.
        """
        request = pb.SignalExecutionRequest(
            name=self.name,
            signal=executor_pb2.Signal.ValueType(signal),
            scope=_SCOPES[scope],
            request_id=request_id(),
        )
        answer = await self._connection.unary(self._stub.SignalExecution, request)
        self.message = answer.execution
        return self.message

    def usage(
        self, interval: timedelta | float = 1
    ) -> AsyncGenerator[executor_pb2.UsageSample, None]:
        """What it uses, now and each `interval` seconds, from 0.1 to 60, until it has ended.

        The last sample, with `running` false, has what it used in all. After a drop it goes on.
        """
        return watch_usage(self._connection, self.name, duration(interval))

    async def delete(self, *, force: bool = False, allow_missing: bool = False) -> None:
        """Remove its record and output; `force` kills it when it runs.

        Raises `FailedPrecondition` when it runs, and `force` is not set.
        """
        request = pb.DeleteExecutionRequest(
            name=self.name, force=force, allow_missing=allow_missing, request_id=request_id()
        )
        await self._connection.unary(self._stub.DeleteExecution, request)


class Executions:
    """All commands of one workspace."""

    def __init__(self, connection: Connection, workspace: str) -> None:
        self._connection = connection
        self._stub = ExecutionServiceStub(connection.channel)
        self._workspace = workspace

    async def run(self, what: executor_pb2.ExecutionSpec, id: str = "") -> Result:  # noqa: A002
        """Run to the end; see `Workspace.execute`."""
        request = pb.ExecuteRequest(
            name=self._workspace, execution_id=id, spec=what, request_id=request_id()
        )
        answer = await self._connection.unary(self._stub.Execute, request)
        return Result(
            execution=answer.execution,
            stdout=_bytes(answer.stdout),
            stderr=_bytes(answer.stderr),
            truncated=answer.stdout.truncated or answer.stderr.truncated,
        )

    async def start(self, what: executor_pb2.ExecutionSpec, id: str = "") -> Execution:  # noqa: A002
        """Start, and return when it runs; see `Workspace.start`."""
        request = pb.StartExecutionRequest(
            parent=self._workspace,
            execution_id=id,
            execution=executor_pb2.Execution(spec=what),
            request_id=request_id(),
        )
        answer = await self._connection.unary(self._stub.StartExecution, request)
        return Execution(self._connection, answer.execution)

    async def list(
        self,
        *,
        filter: str = "",  # noqa: A002 - the contract's word.
        order_by: str = "",
    ) -> AsyncGenerator[Execution, None]:
        """All of them in the order of their ids, or those that `filter` selects.

        It is an expression of AIP-160, say `state = RUNNING` or `exit.code != 0`; `order_by` is
        `name` or `create_time`, with ` desc` or without. Raises `InvalidArgument`, which says where
        one of them is wrong.
        """
        request = pb.ListExecutionsRequest(parent=self._workspace, filter=filter, order_by=order_by)
        while True:
            page = await self._connection.unary(self._stub.ListExecutions, request)
            for message in page.executions:
                yield Execution(self._connection, message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def named(self, id: str) -> Execution:  # noqa: A002
        """A handle on one that is known by its id; nothing is asked yet."""
        message = executor_pb2.Execution(name=f"{self._workspace}/executions/{id}")
        return Execution(self._connection, message)


def _bytes(output: executor_pb2.Output) -> bytes:
    return output.data if output.WhichOneof("content") == "data" else output.text.encode()
