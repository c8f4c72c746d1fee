"""ExecutionService: the executor's RPCs, on workspaces."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceServicer
from gateway import names
from gateway.convert import commands_env, environment_limits
from gateway.face import named
from gateway.forwarding import forwarded
from gateway.inputs import InputFace
from gateway.ready import in_words_of
from gateway.relay import relayed
from gateway.selection import executed
from servicekit.errors import InvalidArgument
from servicekit.status import Context

_LOOK: Final = 5.0
"""Seconds after which a stream without end asks whether its workspace is still there."""


class ExecutionServicer(InputFace, ExecutionServiceServicer):
    async def GetExecution(
        self, request: pb.GetExecutionRequest, context: Context
    ) -> pb.GetExecutionResponse:
        environment, name = await self._find(request.name)
        asked = executor_pb2.GetExecutionRequest(name=name)
        with in_words_of(environment):
            answer = await self._executor.unary(self._rpc.GetExecution, asked)
        return pb.GetExecutionResponse(execution=await self._told(environment, answer.execution))

    async def ListExecutions(
        self, request: pb.ListExecutionsRequest, context: Context
    ) -> pb.ListExecutionsResponse:
        environment = await self._workspaces.kept(request.parent)
        asked = executor_pb2.ListExecutionsRequest(
            parent=names.behind(environment),
            page_size=request.page_size,
            page_token=request.page_token,
            filter=executed(request.filter, request.parent),
            order_by=request.order_by,
        )
        with in_words_of(environment):
            answer = await self._executor.unary(self._rpc.ListExecutions, asked)
        await self._handles.executed(environment, *answer.executions)
        return pb.ListExecutionsResponse(
            executions=[named(environment, each) for each in answer.executions],
            next_page_token=answer.next_page_token,
            page_size=answer.page_size,
        )

    async def WaitExecution(
        self, request: pb.WaitExecutionRequest, context: Context
    ) -> pb.WaitExecutionResponse:
        environment, name = await self._find(request.name)
        asked = executor_pb2.WaitExecutionRequest(name=name)
        with in_words_of(environment):
            answer = await self._executor.unary(self._rpc.WaitExecution, asked)
        return pb.WaitExecutionResponse(execution=await self._told(environment, answer.execution))

    async def DeleteExecution(
        self, request: pb.DeleteExecutionRequest, context: Context
    ) -> pb.DeleteExecutionResponse:
        environment, name = await self._find(request.name)
        asked = executor_pb2.DeleteExecutionRequest(
            name=name,
            force=request.force,
            allow_missing=request.allow_missing,
            request_id=names.derived(request.request_id, "DeleteExecution"),
        )
        with in_words_of(environment, asked, request):
            await self._executor.unary(self._rpc.DeleteExecution, asked)
        return pb.DeleteExecutionResponse()

    async def ReadOutput(
        self, request: pb.ReadOutputRequest, context: Context
    ) -> AsyncIterator[pb.ReadOutputResponse]:
        environment, name = await self._find(request.name)
        asked = executor_pb2.ReadOutputRequest(
            name=name, from_offset=request.from_offset, follow=request.follow, batched=True
        )
        with in_words_of(environment):
            async with self._executor.stream(self._rpc.ReadOutput, asked) as events:
                async for event in events:
                    await self._ended(environment, event)
                    for each in relayed(event, pb.ReadOutputResponse, batched=request.batched):
                        yield each

    async def SignalExecution(
        self, request: pb.SignalExecutionRequest, context: Context
    ) -> pb.SignalExecutionResponse:
        environment, name = await self._find(request.name)
        asked = executor_pb2.SignalExecutionRequest(
            name=name,
            signal=request.signal,
            scope=request.scope,
            request_id=names.derived(request.request_id, "SignalExecution"),
        )
        with in_words_of(environment, asked, request):
            answer = await self._executor.unary(self._rpc.SignalExecution, asked)
        return pb.SignalExecutionResponse(execution=await self._told(environment, answer.execution))

    async def Execute(self, request: pb.ExecuteRequest, context: Context) -> pb.ExecuteResponse:
        environment = await self._workspaces.admitted(request.name)
        asked = executor_pb2.ExecuteRequest(
            handle=environment.handle,
            execution_id=names.execution_id(request.execution_id, request.request_id),
            spec=request.spec,
            environment_env=commands_env(environment.spec),
            environment_limits=environment_limits(environment.spec),
            request_id=names.derived_if(request.request_id, "Execute"),
        )
        with in_words_of(environment, asked, request):
            answer = await self._workspaces.awake(
                environment, asked, lambda: self._executor.unary(self._rpc.Execute, asked)
            )
        return pb.ExecuteResponse(
            execution=await self._told(environment, answer.execution),
            stdout=answer.stdout,
            stderr=answer.stderr,
        )

    async def StreamExecution(
        self, request: pb.StreamExecutionRequest, context: Context
    ) -> AsyncIterator[pb.StreamExecutionResponse]:
        environment = await self._workspaces.admitted(request.name)
        asked = executor_pb2.StreamExecutionRequest(
            handle=environment.handle,
            execution_id=names.execution_id(request.execution_id, request.request_id),
            spec=request.spec,
            environment_env=commands_env(environment.spec),
            environment_limits=environment_limits(environment.spec),
            request_id=names.derived_if(request.request_id, "StreamExecution"),
            cancel_on_disconnect=request.cancel_on_disconnect,
            batched=True,
        )
        events = self._workspaces.awake_stream(
            environment, asked, lambda: self._executor.stream(self._rpc.StreamExecution, asked)
        )
        with in_words_of(environment, asked, request):
            async with aclosing(events):
                async for event in events:
                    await self._ended(environment, event)
                    if event.HasField("execution"):
                        named(environment, event.execution)
                    for each in relayed(event, pb.StreamExecutionResponse, batched=request.batched):
                        yield each

    async def WatchUsage(
        self, request: pb.WatchUsageRequest, context: Context
    ) -> AsyncIterator[pb.WatchUsageResponse]:
        if names.EXECUTIONS in request.name:
            workspace, execution_id = names.split_execution(request.name)
        else:
            workspace, execution_id = request.name, ""
        environment = await self._workspaces.seen(workspace)
        name = names.behind(environment, execution_id)
        interval = request.interval if request.HasField("interval") else None
        asked = executor_pb2.WatchUsageRequest(name=name, interval=interval)
        looked = time.monotonic()
        with in_words_of(environment):
            async with self._executor.stream(self._rpc.WatchUsage, asked) as events:
                async for event in events:
                    await self._ended(environment, event)
                    if kind := event.WhichOneof("event"):
                        yield pb.WatchUsageResponse(**{kind: getattr(event, kind)})
                    if time.monotonic() > looked + _LOOK:  # The executor knows no workspaces.
                        await self._workspaces.seen(names.workspace_name(environment.name))
                        looked = time.monotonic()

    async def ForwardPort(
        self, request_iterator: AsyncIterator[pb.ForwardPortRequest], context: Context
    ) -> AsyncIterator[pb.ForwardPortResponse]:
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("target"):
            raise InvalidArgument("target", "the first message must have one")
        environment = await self._workspaces.ready(first.target.name)
        target = executor_pb2.ForwardPortTarget(handle=environment.handle, port=first.target.port)
        events = self._workspaces.awake_stream(
            environment, target, lambda: forwarded(self._ports, target, request_iterator)
        )
        with in_words_of(environment):
            async with aclosing(events):
                async for event in events:
                    if kind := event.WhichOneof("event"):
                        yield pb.ForwardPortResponse(**{kind: getattr(event, kind)})
