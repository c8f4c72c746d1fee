"""The whole suite around a gateway: real tools on a real disk, the network in between."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from agent.launcher_client import LauncherClient
from agent.protocol import State as SandboxState
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as rpc
from cove.git.v1 import git_pb2
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.provider.v1 import provider_pb2
from cove.provider.v1.provider_pb2_grpc import ProviderServiceStub
from cove.registry.v1 import registry_pb2
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from gateway.app import gateway
from gateway.clock import Clock
from gateway.config import Config
from services.executor.app import executor
from services.executor.config import Config as ExecutorConfig
from services.git.app import git
from services.git.config import Config as GitConfig
from services.provider.app import provider
from services.provider.config import Config as ProviderConfig
from services.registry.app import registry
from services.registry.config import Config as RegistryConfig
from tests.support.failing import Proxy, proxied

T = TypeVar("T")
State = registry_pb2.Environment.State

TOOLS: Final = ("registry", "git", "provider", "executor")
TENANT: Final = "default"
LIMIT: Final = 30.0
_HOST: Final = (("cove-tenant", TENANT),)


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway, as a caller has it."""

    address: str
    workspaces: rpc.WorkspaceServiceStub
    executions: rpc.ExecutionServiceStub
    files: rpc.FileServiceStub
    sources: rpc.SourceServiceStub
    access: rpc.AccessServiceStub
    audit: rpc.AuditServiceStub
    process: "asyncio.subprocess.Process | None" = None

    async def kill(self) -> None:
        """As a power cut would."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    def pause(self) -> None:
        """As a machine does that is suspended."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)


class Times:
    """The clocks of all processes of a stage, which tests move. Seconds."""

    def __init__(self) -> None:
        self.set_ahead = 0.0
        """How far somebody set the wall clocks ahead."""
        self.passed = 0.0
        """How much time went by besides the real one."""

    def pass_(self, by: timedelta) -> None:
        self.passed += by.total_seconds()

    def set(self, by: timedelta) -> None:
        """Forward, or back."""
        self.set_ahead += by.total_seconds()

    def wall(self) -> float:
        return time.time() + self.passed + self.set_ahead

    def wall_ns(self) -> int:
        return time.time_ns() + round((self.passed + self.set_ahead) * 1e9)

    def clock(self) -> Clock:
        """Of a gateway that starts now."""
        return Clock(self.wall, lambda: time.monotonic() + self.passed)


class Stage:
    def __init__(
        self,
        state: Path,
        runtime: Path,
        repository: Path,
        times: Times,
        proxies: list[Proxy],
        apart: "Service | None" = None,
        beside: str = "",
    ) -> None:
        self._apart = apart
        self.beside = beside
        """Address of the other registry, where there are two."""
        self.state = state
        self.runtime = runtime
        self.repository = repository
        self.times = times
        self._proxies = proxies
        self.registry, self.git, self.provider, self.executor = proxies

    def reset(self) -> None:
        """Heal the network, and forget what came over it; the clocks go right again."""
        self.times.set_ahead = self.times.passed = 0.0
        self.heal()
        self.forget()

    def heal(self) -> None:
        for proxy in self._proxies:
            proxy.heal()

    def forget(self) -> None:
        for proxy in self._proxies:
            proxy.calls.clear()
            proxy.refused.clear()

    async def kill_registry(self) -> None:
        """As a power cut would, where it is a process of its own."""
        assert self._apart
        await self._apart.kill()

    async def start_registry(self) -> None:
        """Another one in the place of the one that was killed."""
        assert self._apart
        await self._apart.start()

    def reset_calls(self) -> None:
        """Forget what came over the network, and nothing else."""
        for proxy in (self.registry, self.git, self.provider, self.executor):
            proxy.calls.clear()

    async def clear(self) -> None:
        """Delete every workspace. Fails if something is left then."""
        if await self.empty():
            return
        async with self.gateway("cleaner") as cleaner:
            await eventually(self.settled)
            for record in await self.records():
                name = record.name.replace("environments/", "workspaces/")
                request = pb.DeleteWorkspaceRequest(name=name, force=True, allow_missing=True)
                await cleaner.workspaces.DeleteWorkspace(request)
            await eventually(self.empty)

    async def empty(self) -> bool:
        return not await self.left()

    async def settled(self) -> bool:
        """Whether nothing is going on, and nothing is half done."""
        none = registry_pb2.Environment.OPERATION_NONE
        at_rest = {State.STATE_READY, State.STATE_SUSPENDED}
        at_rest |= {State.STATE_FAILED, State.STATE_DELETED}
        return all(
            record.operation == none and record.state in at_rest for record in await self.records()
        )

    def create(self, workspace_id: str = "demo", **changes: Any) -> pb.CreateWorkspaceRequest:
        spec = {"repository": f"file://{self.repository}", **changes.pop("spec", {})}
        workspace = pb.Workspace(spec=registry_pb2.EnvironmentSpec(**spec))
        return pb.CreateWorkspaceRequest(workspace_id=workspace_id, workspace=workspace, **changes)

    @asynccontextmanager
    async def gateway(self, name: str = "gateway", **changes: Any) -> AsyncIterator[Gateway]:
        """One in this process. It reconciles all the time, and removes orphans at once."""
        settings: dict[str, Any] = {
            "lease": timedelta(seconds=4),
            "reconcile_interval": timedelta(seconds=0.1),
            "orphan_grace": timedelta(0),
            "shutdown_grace": timedelta(seconds=1),
            # Else how far a slow create is may be what meets the fault that is meant for its end.
            "progress_interval": timedelta(hours=1),
            "no_auth": True,
        }
        config = Config(
            state=self.state,
            runtime=self.runtime,
            address=(f"unix:{self.runtime}/{name}",),
            **settings | {tool: self._behind(tool) for tool in TOOLS} | changes,
        )
        clock = self.times.clock()
        async with gateway(config, clock=clock) as served, _connected(served.address) as connected:
            yield connected

    @asynccontextmanager
    async def gateway_process(self, lease: float = 1) -> AsyncIterator[Gateway]:
        """One of its own, to be killed. It reconciles at its start only."""
        settings = {tool.upper(): self._behind(tool) for tool in TOOLS} | {
            "LEASE": f"{lease:g}",
            "NO_AUTH": "true",
            "ADDRESS": f"unix:{self.runtime}/victim",
        }
        env = {
            "COVE_STATE": str(self.state),
            "COVE_RUNTIME": str(self.runtime),
            **{f"COVE_GATEWAY__{key}": value for key, value in settings.items()},
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway"),
            env=os.environ | env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            assert process.stdout
            ready = json.loads(await asyncio.wait_for(process.stdout.readline(), LIMIT))
            async with _connected(ready["addresses"][0], process) as connected:
                yield connected
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def probe(self) -> None:
        """Let the provider find out what this host can do, so that no test waits for it."""
        async with self.direct("provider") as channel:
            request = provider_pb2.GetCapabilitiesRequest()
            answer = await ProviderServiceStub(channel).GetCapabilities(request)
        assert not answer.capabilities.remedy

    async def records(self) -> list[registry_pb2.Environment]:
        async with self.direct("registry") as channel:
            request = registry_pb2.ListEnvironmentsRequest(tenant="-")
            answer = await RegistryServiceStub(channel).ListEnvironments(request)
            return list(answer.environments)

    async def end_sandbox(self, workspace_id: str) -> None:
        """As it ends by itself when it was idle for long."""
        async with LauncherClient.connect(self.runtime / "launcher") as client:
            await client.kill(await self._uid(workspace_id))

    async def active(self, workspace_id: str) -> bool:
        """Whether it has a sandbox now."""
        async with LauncherClient.connect(self.runtime / "launcher") as client:
            status = await client.inspect(await self._uid(workspace_id))
        return status.state is not SandboxState.ABSENT

    async def remove_snapshot(self, workspace_id: str, snapshot_id: str) -> None:
        """Behind the back of all gateways."""
        uid = await self._uid(workspace_id)
        request = git_pb2.RemoveSnapshotRequest(uid=uid, snapshot_id=snapshot_id)
        async with self.direct("git") as channel:
            await GitServiceStub(channel).RemoveSnapshot(request)

    async def _uid(self, workspace_id: str) -> str:
        name = f"environments/{workspace_id}"
        return next(each.uid for each in await self.records() if each.name == name)

    async def left(self) -> set[str]:
        """What is there of any environment: in the registry, git, the provider, as refs."""
        found = {f"record {each.name}" for each in await self.records()}
        async with self.direct("git") as channel:
            trees = await GitServiceStub(channel).ListWorktrees(git_pb2.ListWorktreesRequest())
        found |= {f"worktree {each.uid}" for each in trees.worktrees}
        async with self.direct("provider") as channel:
            listing = provider_pb2.ListProvisionedRequest(return_partial_success=True)
            provisioned = await ProviderServiceStub(channel).ListProvisioned(listing)
        found |= {f"provisioned {each.uid}" for each in provisioned.observations}
        for repository in (self.state / "git" / "repositories").glob("*/*.git"):
            try:
                asked = "for-each-ref", "--format=%(refname)"
                refs = await asyncio.to_thread(_git, repository, *asked)
            except subprocess.CalledProcessError:  # While it is made, or removed.
                found.add(f"half a repository {repository}")
                continue
            found |= {f"ref {ref}" for ref in refs.split() if "/remotes/" not in ref}
        return found

    async def origin(self, *arguments: str) -> str:
        """What git answers in the repository that workspaces are made from."""
        return await asyncio.to_thread(_git, self.repository, *arguments)

    def _behind(self, tool: str) -> str:
        return f"unix:{self.runtime}/p/{tool}"

    def direct(self, tool: str) -> grpc.aio.Channel:
        """To a tool, past the network in between; of two registries to the one beside."""
        address = f"unix:{self.runtime}/{tool}"
        if tool == "registry" and self.beside:
            address = self.beside
        return grpc.aio.insecure_channel(address, interceptors=[_Tenant()])


class _Tenant(grpc.aio.UnaryUnaryClientInterceptor):
    """Calls a tool as a gateway would for the tenant."""

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        given = tuple(client_call_details.metadata or ())
        details = client_call_details._replace(metadata=grpc.aio.Metadata(*given, *_HOST))
        return await continuation(details, request)


@asynccontextmanager
async def staged(
    folder: Path,
    *,
    apart: bool = False,
    database: str = "",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> AsyncIterator[Stage]:
    """Launcher, registry, git, provider and executor, each behind a proxy; `settings` by service.

    With `apart` the registry is a process of its own; with a `database` of PostgreSQL, too, and
    there is another on it: `Stage.beside`.
    """
    runtime = Path(tempfile.mkdtemp(prefix="cove-"))
    (runtime / "p").mkdir(mode=0o700)
    state = folder / "state"
    shared: dict[str, Any] = {
        "state": state,
        "runtime": runtime,
        "shutdown_grace": timedelta(seconds=1),
    }
    changed: dict[str, dict[str, Any]] = {
        "git": {"local_roots": (folder,), "allowed_hosts": ("127.0.0.1",)},
        "provider": {"egress_networks": ("127.0.0.0/8",)},
    }
    for name, changes in (settings or {}).items():
        changed.setdefault(name, {}).update(changes)

    def of(service: str) -> dict[str, Any]:
        return shared | changed.get(service, {})

    times = Times()
    repository = await asyncio.to_thread(make_repository, folder / "origin.git")
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(launcher(state, runtime))
            await stack.enter_async_context(egress(runtime))
            service, beside = None, ""
            if apart or database:
                service = Service("registry", state, runtime, COVE_REGISTRY__DATABASE=database)
                await service.start()
                stack.push_async_callback(service.kill)
            if database:
                other = RegistryConfig(**shared | {"runtime": runtime / "2"}, database=database)
                beside = (await stack.enter_async_context(registry(other))).address
            if not service:
                await stack.enter_async_context(
                    registry(RegistryConfig(**of("registry")), now=times.wall_ns)
                )
            for app in (
                git(GitConfig(**of("git"))),
                provider(ProviderConfig(**of("provider"))),
                executor(ExecutorConfig(**of("executor"))),
            ):
                await stack.enter_async_context(app)
            proxies = [
                await stack.enter_async_context(
                    proxied(f"unix:{runtime}/{tool}", f"unix:{runtime}/p/{tool}")
                )
                for tool in TOOLS
            ]
            stage = Stage(state, runtime, repository, times, proxies, service, beside)
            await stage.probe()
            yield stage
    finally:
        await asyncio.to_thread(shutil.rmtree, runtime, ignore_errors=True)


class Service:
    """A service of the suite as a process of its own."""

    def __init__(self, name: str, state: Path, runtime: Path, **env: str) -> None:
        self._name = name
        self._env = {"COVE_STATE": str(state), "COVE_RUNTIME": str(runtime), **env}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it serves."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"services.{self._name}"),
            env=os.environ | self._env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout
        line = await asyncio.wait_for(self._process.stdout.readline(), LIMIT)
        assert line, f"{self._name} does not start"

    async def kill(self) -> None:
        assert self._process
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


@asynccontextmanager
async def launcher(state: Path, runtime: Path) -> AsyncIterator[None]:
    """The launcher of the node; its sandboxes end with it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent.launcher", "--stop-sandboxes"),
        *("--runtime", str(runtime), "--state", str(state), "--node", "node-1"),
        stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await eventually(lambda: _exists(runtime / "launcher"))
        yield
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), LIMIT)


@asynccontextmanager
async def egress(runtime: Path) -> AsyncIterator[None]:
    """The proxy of the node."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent.egress", "--runtime", str(runtime)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await eventually(lambda: _exists(runtime / "egress"))
        yield
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), LIMIT)


async def eventually(check: Callable[[], Awaitable[T]], within: float = LIMIT) -> T:
    """What `check` answers as soon as that is true."""
    until = time.monotonic() + within
    while True:
        answer = await check()
        if answer or time.monotonic() > until:
            assert answer, "it did not come to be"
            return answer
        await asyncio.sleep(0.02)


def make_repository(path: Path) -> Path:
    """A bare repository with one commit on `main`."""
    work = path.with_suffix(".work")
    subprocess.run(["git", "init", "-q", "-b", "main", work], check=True)
    (work / "hello.txt").write_text("hello\n")
    _git(work / ".git", "--work-tree", str(work), "add", ".")
    _git(work / ".git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qm", "first")
    subprocess.run(["git", "clone", "-q", "--bare", work, path], check=True)
    return path


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", f"--git-dir={directory}", *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


async def _exists(path: Path) -> bool:
    return path.exists()


@asynccontextmanager
async def _connected(
    address: str, process: "asyncio.subprocess.Process | None" = None
) -> AsyncIterator[Gateway]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield Gateway(
            address,
            rpc.WorkspaceServiceStub(channel),
            rpc.ExecutionServiceStub(channel),
            rpc.FileServiceStub(channel),
            rpc.SourceServiceStub(channel),
            rpc.AccessServiceStub(channel),
            rpc.AuditServiceStub(channel),
            process,
        )
