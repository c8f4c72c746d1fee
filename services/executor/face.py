"""What all parts of the executor's gRPC face stand on, and how they start commands."""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Mapping

from cove.executor.v1 import executor_pb2 as pb
from servicekit import calls
from servicekit.fencing import Fences
from servicekit.ledger import Ledger
from servicekit.paging import PageTokens
from services.executor import convert
from services.executor.agents import Agents
from services.executor.alive import Alive
from services.executor.background import Background
from services.executor.executions import Executions
from services.executor.inputs import Inputs
from services.executor.output import Outputs
from services.executor.ports import Ports
from services.executor.record import Record, Spec
from services.executor.retention import Retention
from services.executor.secrets import Variables
from services.executor.tenants import Tenants
from services.executor.using import Uses


class Face:
    """Holds what it speaks for."""

    def __init__(
        self,
        *,
        executions: Executions,
        outputs: Outputs,
        inputs: Inputs,
        agents: Agents,
        alive: Alive,
        ports: Ports,
        heartbeat: float,
        ledger: Ledger,
        fences: Fences,
        tokens: PageTokens,
        background: Background,
        stopping: asyncio.Event,
        uses: Uses,
        methods: Mapping[str, str],
        retention: Retention,
        tenants: Tenants,
    ) -> None:
        self._executions = executions
        self._outputs = outputs
        self._inputs = inputs
        self._agents = agents
        self._alive = alive
        self._ports = ports
        self._heartbeat = heartbeat
        self._ledger = ledger
        self._fences = fences
        self._tokens = tokens
        self._background = background
        self._stopping = stopping
        self._uses = uses
        self._methods = methods
        self._retention = retention
        self._tenants = tenants

    async def _started(self, request: convert.Request, spec: pb.ExecutionSpec) -> Record:
        if not request.request_id:
            return await self._executions.begin(*self._wanted(request, spec))
        answer = await self._start(request, spec)
        return await self._executions.find(*parts(answer.execution.name))

    async def _start(
        self, request: convert.Request, spec: pb.ExecutionSpec
    ) -> pb.StartExecutionResponse:
        async def start() -> pb.StartExecutionResponse:
            found = await self._executions.start(*self._wanted(request, spec))
            return pb.StartExecutionResponse(execution=convert.execution(found))

        return await self._ledger.once(
            self._agents.settled(request), pb.StartExecutionResponse, start
        )

    def _wanted(
        self, request: convert.Request, spec: pb.ExecutionSpec
    ) -> tuple[str, str, Spec, Variables]:
        uid = self._agents.environment(request.handle)
        execution_id = request.execution_id or _new_id(uid, request.request_id)
        variables = Variables(
            env=request.environment_env,
            secrets=dict(spec.secrets),
            disk_bytes=request.environment_limits.disk_bytes,
            open_files=request.environment_limits.open_files,
            tenant=calls.current().identity.tenant,
            handle=request.handle,
        )
        return uid, execution_id, convert.spec_of(spec), variables


def parts(name: str) -> tuple[str, str]:
    """Uid and execution id of `environments/{uid}/executions/{id}`."""
    _, uid, _, execution_id = name.split("/")
    return uid, execution_id


def _new_id(uid: str, request_id: str) -> str:
    """Made of the request id, if there is one, so that any retry makes the same."""
    if not request_id:
        return f"x{secrets.token_hex(8)}"
    identity = calls.current().identity
    said = "\0".join((identity.tenant, identity.principal, uid, request_id.lower()))
    digest = hashlib.sha256(said.encode()).digest()
    return "x" + base64.b32encode(digest[:10]).decode().lower()
