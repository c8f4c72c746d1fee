"""What takes an engine, a machine, or minutes that there are not here: the network tells the
gateway what the service would, in the service's own words, which tests of that service provoke."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from google.protobuf.message import Message

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1 import registry_pb2
from servicekit.errors import ServiceError
from services.executor import errors as executor
from services.provider import errors as provider
from services.registry import errors as registry
from tests.errors.cases import Provoke, provokes
from tests.errors.commands import upload
from tests.errors.doors import Refusal
from tests.errors.world import Try

UID: Final = "a" * 16


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a service says where it is asked by the gateway."""

    tool: str
    rpc: str
    """Of the tool."""
    error: Callable[[], ServiceError]
    asked: str
    """The gateway's RPC that a caller makes."""
    requests: Callable[[str], tuple[Message, ...]]
    """Of the name of a workspace."""
    why: str
    """What there is not here."""
    proof: str
    """Where the service itself says it, for real."""


def creating(name: str) -> tuple[Message, ...]:
    workspace = pb.Workspace(spec=registry_pb2.EnvironmentSpec())
    return (pb.CreateWorkspaceRequest(workspace=workspace),)


def executing(name: str) -> tuple[Message, ...]:
    spec = executor_pb2.ExecutionSpec(argv=["true"])
    return (pb.ExecuteRequest(name=name, spec=spec),)


RELAYED: Final[Mapping[str, tuple[str, Told]]] = {
    "SANDBOX_UNAVAILABLE": (
        "FAILED_PRECONDITION",
        Told(
            tool="provider",
            rpc="ValidateSpec",
            error=lambda: provider.SandboxUnavailable(
                "no sandbox can be made on this host", cause="no user namespaces"
            ),
            asked="CreateWorkspace",
            requests=creating,
            why="a host that can make none",
            proof="tests/provider/test_service.py",
        ),
    ),
    "IMAGE_UNAVAILABLE": (
        "FAILED_PRECONDITION",
        Told(
            tool="provider",
            rpc="ValidateSpec",
            error=lambda: provider.ImageUnavailable(
                "the engine has no such image, and cannot fetch it", image="none", cause="404"
            ),
            asked="CreateWorkspace",
            requests=creating,
            why="an engine of containers",
            proof="tests/docker/test_life.py",
        ),
    ),
    "BUILD_FAILED": (
        "FAILED_PRECONDITION",
        Told(
            tool="provider",
            rpc="ProvisionEnvironment",
            error=lambda: provider.BuildFailed("a command of the setup failed", cause="exit 1"),
            asked="CreateWorkspace",
            requests=creating,
            why="an engine of containers",
            proof="tests/docker/test_setup.py",
        ),
    ),
    "ACTIVATION_FAILED": (
        "UNAVAILABLE",
        Told(
            tool="provider",
            rpc="ActivateEnvironment",
            error=lambda: provider.ActivationFailed("the sandbox did not start", cause="no memory"),
            asked="Execute",
            requests=executing,
            why="a host that fails half-way",
            proof="tests/provider/test_overlay.py",
        ),
    ),
    "AGENT_TOO_OLD": (
        "FAILED_PRECONDITION",
        Told(
            tool="executor",
            rpc="Execute",
            error=lambda: executor.AgentTooOld("the agent is of another version", uid=UID),
            asked="Execute",
            requests=executing,
            why="a sandbox of an earlier version",
            proof="tests/provider/test_network.py",
        ),
    ),
    "SECRETS_UNPROTECTED": (
        "FAILED_PRECONDITION",
        Told(
            tool="executor",
            rpc="Execute",
            error=lambda: executor.SecretsUnprotected(
                "the kernel cannot keep secrets of one command from others"
            ),
            asked="Execute",
            requests=executing,
            why="a kernel without Landlock",
            proof="tests/executor/test_secrets.py",
        ),
    ),
    "NO_SPACE": (
        "RESOURCE_EXHAUSTED",
        Told(
            tool="executor",
            rpc="WriteFile",
            error=lambda: executor.NoSpace("no space is left", path="new"),
            asked="WriteFile",
            requests=lambda name: upload(pb.WriteFileHeader(name=name, path="new"), b"x"),
            why="a disk of its own that is full",
            proof="tests/executor/test_full_disk.py",
        ),
    ),
    "WATCH_LIMIT": (
        "RESOURCE_EXHAUSTED",
        Told(
            tool="executor",
            rpc="WatchFiles",
            error=lambda: executor.WatchLimit(
                "it cannot be watched: too many directories",
                path=".",
                why="too many directories",
            ),
            asked="WatchFiles",
            requests=lambda name: (pb.WatchFilesRequest(name=name, path="."),),
            why="a limit of the kernel that is lower",
            proof="tests/executor/test_watches.py",
        ),
    ),
    "DATABASE_UNAVAILABLE": (
        "UNAVAILABLE",
        Told(
            tool="registry",
            rpc="ListEnvironments",
            error=lambda: registry.DatabaseUnavailable(
                "the database of the registry cannot be used just now",
                retry_after=timedelta(seconds=1),
            ),
            asked="ListWorkspaces",
            requests=lambda name: (pb.ListWorkspacesRequest(),),
            why="PostgreSQL",
            proof="tests/registry/test_outages.py",
        ),
    ),
    "WATCHER_TOO_SLOW": (
        "RESOURCE_EXHAUSTED",
        Told(
            tool="registry",
            rpc="WatchEnvironments",
            error=lambda: registry.WatcherTooSlow("the watcher fell behind", revision="7"),
            asked="WatchWorkspaces",
            requests=lambda name: (pb.WatchWorkspacesRequest(),),
            why="changes of many MiB that nobody reads",
            proof="tests/registry/test_watch.py",
        ),
    ),
    "HANDLE_STALE": (
        "FAILED_PRECONDITION",
        Told(
            tool="executor",
            rpc="Execute",
            error=lambda: executor.HandleStale(
                "the environment has gone on since", uid=UID, generation="2"
            ),
            asked="Execute",
            requests=executing,
            why="an engine whose handles move",
            proof="tests/drivers/test_handles.py",
        ),
    ),
}


def _provoking(told: Told) -> Provoke:
    async def provoke(t: Try) -> Refusal:
        name = await t.shared()
        if told.rpc == "ActivateEnvironment":
            name = await t.workspace("inert", repository="")
        tool = getattr(t.stage, told.tool)
        tool.fail(told.rpc, told.error())
        try:
            return await t.door.ask(told.asked, *told.requests(name))
        finally:
            t.stage.heal()

    return provoke


for _reason, (_code, _told) in RELAYED.items():
    provokes(_reason, _code)(_provoking(_told))
