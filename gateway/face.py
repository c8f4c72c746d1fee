"""What all parts of ExecutionService stand on, and how it starts commands."""

from typing import Any

from cove.executor.v1 import executor_pb2
from cove.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.convert import commands_env, environment_limits
from gateway.handles import Handles
from gateway.ready import Workspaces, in_words_of
from gateway.tools import Tools
from servicekit.status import Context


class Face:
    """Holds what it speaks for."""

    def __init__(self, tools: Tools, workspaces: Workspaces, handles: Handles) -> None:
        self._handles = handles
        self._executor = tools.executor
        self._ports = tools.ports
        self._workspaces = workspaces

    @property
    def _rpc(self) -> ExecutorServiceStub:
        return self._executor.rpc

    async def StartExecution(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> pb.StartExecutionResponse:
        environment = await self._workspaces.admitted(request.parent)
        asked = executor_pb2.StartExecutionRequest(
            handle=environment.handle,
            execution_id=names.execution_id(request.execution_id, request.request_id),
            execution=request.execution,
            environment_env=commands_env(environment.spec),
            environment_limits=environment_limits(environment.spec),
            request_id=names.derived_if(request.request_id, "StartExecution"),
        )
        with in_words_of(environment, asked, request):
            answer = await self._workspaces.awake(
                environment, asked, lambda: self._executor.unary(self._rpc.StartExecution, asked)
            )
        return pb.StartExecutionResponse(execution=await self._told(environment, answer.execution))

    async def _find(self, name: str) -> tuple[Environment, str]:
        """The workspace of an execution, and how the executor names it."""
        workspace, execution_id = names.split_execution(name)
        environment = await self._workspaces.kept(workspace)
        return environment, names.behind(environment, execution_id)

    async def _told(
        self, environment: Environment, execution: executor_pb2.Execution
    ) -> executor_pb2.Execution:
        """An execution as its caller sees it."""
        await self._handles.executed(environment, execution)
        return named(environment, execution)

    async def _ended(self, environment: Environment, event: Any) -> None:
        """Note what an event of a stream tells of the handle, before it is passed on."""
        match event.WhichOneof("event"):
            case "exit":
                await self._handles.follow(environment, [event.exit])
            case "execution":
                await self._handles.executed(environment, event.execution)


def named(environment: Environment, execution: executor_pb2.Execution) -> executor_pb2.Execution:
    """The same execution by the name that callers know."""
    _, execution_id = names.split_execution(execution.name)
    execution.name = f"{names.workspace_name(environment.name)}{names.EXECUTIONS}{execution_id}"
    return execution
