"""A suite with a gateway that has both doors, and what provocations need of it."""

import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar, cast

import grpc
import httpx
import pytest

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub
from cove.git.v1 import git_pb2
from cove.options.v1.options_pb2 import Role
from cove.provider.v1 import provider_pb2
from cove.registry.v1 import access_pb2, registry_pb2
from gateway.app import gateway
from gateway.config import Config
from tests.errors.doors import Door, Grpc, Http
from tests.gateway.stage import TENANT, TOOLS, Stage

T = TypeVar("T")

FILES: Final = {
    "registry": registry_pb2.DESCRIPTOR,
    "git": git_pb2.DESCRIPTOR,
    "provider": provider_pb2.DESCRIPTOR,
    "executor": executor_pb2.DESCRIPTOR,
}
FOREIGN: Final = "globex"
"""Another tenant, which has a workspace too."""


@dataclass(frozen=True, kw_only=True)
class Doors:
    """Of one gateway."""

    grpc: Grpc
    http: Http
    address: str

    def __iter__(self) -> Any:
        return iter((self.grpc, self.http))


@dataclass(kw_only=True)
class World:
    """One suite; all provocations share it, each with names of its own."""

    stage: Stage
    folder: Path
    doors: Doors
    secrets: dict[str, str] = field(default_factory=dict)
    """Tokens, by what they are."""
    foreign: str = ""
    """Uid of the workspace of another tenant."""
    remote: str = ""
    """URL of a repository behind a password."""
    silent: str = ""
    """URL of a host that breaks off."""
    made: dict[str, Any] = field(default_factory=dict)
    """What several provocations share, by name."""
    tight: "World | None" = None
    """The other one, which is at its limits."""

    @asynccontextmanager
    async def gateway(self, name: str, **changes: Any) -> AsyncIterator[Doors]:
        """Another one, on the same tools."""
        async with opened(self.stage, name, **changes) as doors:
            yield doors

    @asynccontextmanager
    async def tool(self, name: str) -> AsyncIterator[Grpc]:
        """A tool's own socket, called as gateways do."""
        async with grpc.aio.insecure_channel(f"unix:{self.stage.runtime}/{name}") as channel:
            yield Grpc(channel, "", "behind", FILES[name], {"cove-tenant": TENANT})

    @property
    def private(self) -> tuple[str, ...]:
        """What no caller may read in a failure."""
        tokens = (self.doors.grpc.token, *self.secrets.values())
        return (str(self.stage.state), str(self.stage.runtime), self.foreign, *tokens)


@dataclass(kw_only=True)
class Try:
    """One provocation at one door. What it makes has the door in its name."""

    world: World
    door: Door

    @property
    def stage(self) -> Stage:
        return self.world.stage

    def tight(self) -> "Try":
        """At the same door of the suite that is at its limits."""
        assert self.world.tight
        doors = self.world.tight.doors
        door = next(each for each in doors if each.name == self.door.name)
        return Try(world=self.world.tight, door=door)

    def id(self, name: str) -> str:
        return f"{name}-{self.door.name}"

    async def once(self, what: str, make: Callable[[], Awaitable[T]]) -> T:
        """What `make` makes, which is done once for all: a call that is refused changes nothing."""
        if what not in self.world.made:
            self.world.made[what] = await make()
        return cast("T", self.world.made[what])

    async def ok(self, rpc: str, *requests: Any) -> Any:
        """What has to go well first."""
        return await self.world.doors.grpc.call(rpc, *requests)

    async def workspace(self, name: str, **spec: Any) -> str:
        """A new one; returns its name. Of the stage's repository where `spec` names none."""
        spec = {"repository": f"file://{self.stage.repository}", **spec}
        workspace = pb.Workspace(spec=registry_pb2.EnvironmentSpec(**spec))
        made = await self.ok(
            "CreateWorkspace",
            pb.CreateWorkspaceRequest(workspace_id=self.id(name), workspace=workspace),
        )
        return str(made.workspace.name)

    async def shared(self) -> str:
        """One that is there for all, of which nothing is changed but what has an own name."""
        name = f"workspaces/{self.id('shared')}"
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.workspace("shared")
        return name

    async def uid(self, name: str) -> str:
        found = await self.ok("GetWorkspace", pb.GetWorkspaceRequest(name=name))
        return str(found.workspace.uid)

    async def run(self, name: str, script: str) -> str:
        """The output of a command in a workspace, which must end well."""
        request = pb.ExecuteRequest(name=name, spec=executor_pb2.ExecutionSpec(script=script))
        done = await self.ok("Execute", request)
        assert done.execution.exit.code == 0, done
        return str(done.stdout.text)

    async def start(self, name: str, id_: str, script: str, **spec: Any) -> str:
        """Start a command; returns the name of the execution."""
        wanted = executor_pb2.ExecutionSpec(script=script, **spec)
        started = await self.ok(
            "StartExecution",
            pb.StartExecutionRequest(
                parent=name,
                execution_id=id_,
                execution=executor_pb2.Execution(spec=wanted),
            ),
        )
        return str(started.execution.name)

    async def said(self, execution: str, text: bytes) -> bytes:
        """What a command has said, as soon as that is in it."""
        request = pb.ReadOutputRequest(name=execution, follow=True)
        grpc_ = self.world.doors.grpc
        stub = ExecutionServiceStub(grpc_.channel)
        call = stub.ReadOutput(request, metadata=(("authorization", f"Bearer {grpc_.token}"),))
        heard = b""
        async for event in call:
            heard += event.chunk.data
            if text in heard:
                break
        call.cancel()
        return heard

    async def commit(self, name: str, message: str = "Change") -> str:
        made = await self.ok(
            "CreateCommit",
            pb.CreateCommitRequest(parent=name, commit=git_pb2.Commit(message=message)),
        )
        return str(made.commit.id)


@contextmanager
def limited(module: ModuleType, name: str, most: int) -> Iterator[None]:
    """A limit of a service of this process is lower while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, most)
        yield


@asynccontextmanager
async def opened(stage: Stage, name: str, **changes: Any) -> AsyncIterator[Doors]:
    """A gateway in front of the stage, behind the network that can fail."""
    config: dict[str, Any] = {
        "state": stage.state,
        "runtime": stage.runtime,
        "address": (f"unix:{stage.runtime}/{name}",),
        "http": "127.0.0.1:0",
        "grpc": "127.0.0.1:0",
        "reconcile_interval": timedelta(seconds=0.2),
        "orphan_grace": timedelta(0),
        "shutdown_grace": timedelta(seconds=1),
        **{tool: f"unix:{stage.runtime}/p/{tool}" for tool in TOOLS},
    }
    async with (
        AsyncExitStack() as callers,  # Who are there for longer than it is.
        gateway(Config(**config | changes), clock=stage.times.clock()) as served,
    ):
        token = (stage.state / "registry" / "token").read_text().strip()
        channel = grpc.aio.insecure_channel(served.address)
        await callers.enter_async_context(channel)
        client = httpx.AsyncClient(base_url=f"http://{served.http}", trust_env=False, timeout=30)
        await callers.enter_async_context(client)
        doors = Grpc(channel, token), Http(client, token)
        yield Doors(grpc=doors[0], http=doors[1], address=served.address)


async def people(world: World) -> None:
    """Tokens of all kinds, and a tenant that is nobody's business."""
    call = world.doors.grpc.call
    numbers = itertools.count()

    async def token(role: Role.ValueType, **fields: Any) -> str:
        wanted = access_pb2.Token(role=role, **fields)
        request = pb.CreateTokenRequest(token_id=f"t{next(numbers)}", token=wanted)
        return str((await call("CreateToken", request)).secret)

    world.secrets["reader"] = await token(Role.ROLE_READER)
    spec = registry_pb2.EnvironmentSpec(repository=f"file://{world.stage.repository}")
    mine = pb.CreateWorkspaceRequest(
        workspace_id="mine", workspace=pb.Workspace(spec=spec), request_id=str(uuid.uuid4())
    )
    await call("CreateWorkspace", mine)
    world.secrets["share"] = await token(Role.ROLE_WRITER, workspace="workspaces/mine")
    theirs = pb.CreateWorkspaceRequest(
        workspace_id="theirs", workspace=pb.Workspace(spec=registry_pb2.EnvironmentSpec())
    )
    made = await call("CreateWorkspace", theirs, cove_tenant=FOREIGN)
    world.foreign = made.workspace.uid
