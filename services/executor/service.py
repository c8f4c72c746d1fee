"""gRPC face of the executor: check the request, ask, convert."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Final, TypeVar

from agent.client import Scope
from agent.handle import Handle
from agent.record import Stream
from cove.executor.v1 import executor_pb2 as pb
from cove.executor.v1.executor_pb2_grpc import ExecutorServiceServicer
from servicekit import calls
from servicekit.errors import InvalidArgument
from servicekit.status import Context
from services.executor import convert, telling
from services.executor.bounded import Bounded
from services.executor.ending import End
from services.executor.errors import ExecutionNotFound
from services.executor.face import parts
from services.executor.face_input import InputFace
from services.executor.forwarding import forward
from services.executor.output import Chunk, Event, Gap
from services.executor.record import Record
from services.executor.selecting import ordering, selection

_ANSWERED: Final = 1 << 20
"""Bytes of each stream in the answer of Execute."""
_INTERVAL: Final = 1.0
_SCOPES: Final = {
    pb.SIGNAL_SCOPE_UNSPECIFIED: Scope.GROUP,
    pb.SIGNAL_SCOPE_PROCESS: Scope.PROCESS,
    pb.SIGNAL_SCOPE_GROUP: Scope.GROUP,
    pb.SIGNAL_SCOPE_TREE: Scope.TREE,
}


R = TypeVar("R", pb.ReadOutputResponse, pb.StreamExecutionResponse)


class ExecutorServicer(InputFace, ExecutorServiceServicer):
    async def StartExecution(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> pb.StartExecutionResponse:
        return await self._start(request, request.execution.spec)

    async def GetExecution(
        self, request: pb.GetExecutionRequest, context: Context
    ) -> pb.GetExecutionResponse:
        found = await self._executions.get(*parts(request.name))
        alive = await self._alive.of(found.record.uid, [found])
        message = convert.execution(found, alive.get(found.record.key))
        return pb.GetExecutionResponse(execution=message)

    async def ListExecutions(
        self, request: pb.ListExecutionsRequest, context: Context
    ) -> pb.ListExecutionsResponse:
        page = self._tokens.page(request, default=100, maximum=1000)
        uid = request.parent.split("/")[1]
        selected, order = selection(request.filter, request.parent), ordering(request.order_by)
        found, last = await self._executions.page(uid, order, page.after, page.size, selected)
        alive = await self._alive.of(uid, found)
        answer = pb.ListExecutionsResponse(
            executions=[convert.execution(each, alive.get(each.record.key)) for each in found],
            page_size=page.size,
        )
        if last:
            answer.next_page_token = self._tokens.next(request, after=last)
        return answer

    async def WaitExecution(
        self, request: pb.WaitExecutionRequest, context: Context
    ) -> pb.WaitExecutionResponse:
        record = await self._executions.find(*parts(request.name))
        ended = await self._executions.wait(record)
        answer = pb.WaitExecutionResponse(execution=convert.execution(ended))
        await self._tell_handle(record, answer.execution.exit)
        return answer

    async def DeleteExecution(
        self, request: pb.DeleteExecutionRequest, context: Context
    ) -> pb.DeleteExecutionResponse:
        async def delete() -> pb.DeleteExecutionResponse:
            try:
                await self._executions.delete(*parts(request.name), force=request.force)
            except ExecutionNotFound:
                if not request.allow_missing:
                    raise
            return pb.DeleteExecutionResponse()

        return await self._ledger.once(request, pb.DeleteExecutionResponse, delete)

    async def DeleteExecutions(
        self, request: pb.DeleteExecutionsRequest, context: Context
    ) -> pb.DeleteExecutionsResponse:
        uid = request.parent.split("/")[1]

        async def delete() -> pb.DeleteExecutionsResponse:
            removed = await self._executions.delete_all(uid)
            return pb.DeleteExecutionsResponse(removed=removed)

        async def fenced() -> pb.DeleteExecutionsResponse:
            return await self._fences.guard(uid, delete, ends=True)

        return await self._ledger.once(request, pb.DeleteExecutionsResponse, fenced)

    async def ReadOutput(
        self, request: pb.ReadOutputRequest, context: Context
    ) -> AsyncIterator[pb.ReadOutputResponse]:
        record = await self._executions.find(*parts(request.name))
        batches = self._outputs.batches(record, request.from_offset, follow=request.follow)
        told = self._told(record, batches, pb.ReadOutputResponse, batched=request.batched)
        async with aclosing(told):
            async for message in told:
                yield message

    async def _told(
        self,
        record: Record,
        batches: AsyncGenerator[list[Event], None],
        response: type[R],
        *,
        batched: bool,
    ) -> AsyncGenerator[R, None]:
        """The output as messages of a stream."""
        async with aclosing(batches):
            async for events in batches:
                for event in telling.batched(events) if batched else events:
                    message = telling.message(event, response)
                    if message.HasField("exit"):
                        await self._tell_handle(record, message.exit)
                    yield message

    async def SignalExecution(
        self, request: pb.SignalExecutionRequest, context: Context
    ) -> pb.SignalExecutionResponse:
        async def signal() -> pb.SignalExecutionResponse:
            names = parts(request.name)
            scope = _SCOPES[request.scope]
            found = await self._executions.signal(*names, request.signal, scope)
            return pb.SignalExecutionResponse(execution=convert.execution(found))

        return await self._ledger.once(request, pb.SignalExecutionResponse, signal)

    async def Execute(self, request: pb.ExecuteRequest, context: Context) -> pb.ExecuteResponse:
        record = await self._started(request, request.spec)
        ended = await self._executions.briefly(record)
        outputs = {Stream.STDOUT: Bounded(_ANSWERED), Stream.STDERR: Bounded(_ANSWERED)}
        if ended is None or ended.output_bytes:
            await self._collect(record, outputs)
        ended = ended or await self._executions.wait(record)
        answer = pb.ExecuteResponse(
            execution=convert.execution(ended),
            stdout=outputs[Stream.STDOUT].message(),
            stderr=outputs[Stream.STDERR].message(),
        )
        await self._tell_handle(record, answer.execution.exit)
        return answer

    async def _tell_handle(self, record: Record, told: pb.Exit) -> None:
        """Which handle the environment has after a command, where that moved it."""
        if handle := await self._agents.moved(record.uid):
            told.handle, told.generation = handle, Handle.decode(handle).generation

    async def _collect(self, record: Record, outputs: Mapping[Stream, Bounded]) -> None:
        events = self._outputs.read(record, 0, follow=True)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Chunk):
                    outputs.get(event.stream, outputs[Stream.STDOUT]).add(event.data)
                elif isinstance(event, Gap):  # Of either stream; nobody knows.
                    for output in outputs.values():
                        output.truncated = True
                if all(output.truncated for output in outputs.values()):
                    return

    async def StreamExecution(
        self, request: pb.StreamExecutionRequest, context: Context
    ) -> AsyncIterator[pb.StreamExecutionResponse]:
        batched = request.batched
        request.ClearField("batched")  # How it is told is no part of what is to be started.
        record = await self._started(request, request.spec)
        batches = self._outputs.batches(record, 0, follow=True)
        ended = False
        try:
            first = await self._executions.snapshot(record)
            yield pb.StreamExecutionResponse(execution=convert.execution(first))
            told = self._told(record, batches, pb.StreamExecutionResponse, batched=batched)
            async with aclosing(told):
                async for message in told:
                    ended = message.HasField("exit")
                    yield message
        finally:
            # A server that stops ends the stream too, but then the caller has not left.
            if request.cancel_on_disconnect and not ended and not self._stopping.is_set():
                by = calls.current().identity.principal or "the caller"
                self._background.begin(self._executions.cancel(record, by))

    async def WatchUsage(
        self, request: pb.WatchUsageRequest, context: Context
    ) -> AsyncIterator[pb.WatchUsageResponse]:
        interval = convert.seconds(request.interval) or _INTERVAL
        _, uid, *execution = request.name.split("/")
        record = await self._executions.find(uid, execution[1]) if execution else None
        samples = self._uses.watch(uid, record, interval)
        async with aclosing(samples):
            async for sample in samples:
                if isinstance(sample, End):
                    yield pb.WatchUsageResponse(exit=convert.exit_of(sample))
                else:
                    yield pb.WatchUsageResponse(sample=convert.sample(sample))

    async def GetCapabilities(
        self, request: pb.GetCapabilitiesRequest, context: Context
    ) -> pb.GetCapabilitiesResponse:
        return pb.GetCapabilitiesResponse(
            capabilities=convert.capabilities(self._methods, self._retention)
        )

    async def GetTenantUsage(
        self, request: pb.GetTenantUsageRequest, context: Context
    ) -> pb.GetTenantUsageResponse:
        running = await self._tenants.running(calls.current().identity.tenant)
        return pb.GetTenantUsageResponse(executions=running)

    async def ForwardPort(
        self, request_iterator: AsyncIterator[pb.ForwardPortRequest], context: Context
    ) -> AsyncIterator[pb.ForwardPortResponse]:
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("target"):
            raise InvalidArgument("target", "the first message must have one")
        uid = await self._agents.in_force(first.target.handle)
        async with self._ports.connected(uid, first.target.port) as connection:
            events = forward(connection, request_iterator, self._heartbeat)
            async with aclosing(events):
                async for event in events:
                    yield event

    async def ListExecuted(
        self, request: pb.ListExecutedRequest, context: Context
    ) -> pb.ListExecutedResponse:
        page = self._tokens.page(request, default=100, maximum=1000)
        uids = [each for each in await self._executions.environments() if each > page.after]
        shown = uids[: page.size]
        more = self._tokens.next(request, after=shown[-1]) if len(uids) > page.size else ""
        return pb.ListExecutedResponse(
            parents=[f"environments/{uid}" for uid in shown],
            next_page_token=more,
            page_size=page.size,
        )
