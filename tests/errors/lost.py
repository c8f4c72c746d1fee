"""Why a workspace is FAILED: reasons that are told in an answer, as no call has failed."""

import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeAlias

from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.provider.v1 import provider_pb2
from cove.registry.v1 import registry_pb2
from servicekit.errors import Unavailable
from tests.errors.behind import call
from tests.errors.workspaces import nodes, once_it_answers
from tests.errors.world import Doors, Try, opened
from tests.gateway.stage import eventually, staged

FAILED: Final = pb.Workspace.STATE_FAILED


Lost: TypeAlias = AsyncIterator[tuple[Doors, str]]
"""Where a workspace is, and its name."""


async def failed(doors: Doors, name: str) -> None:
    """Wait until the workspace is FAILED."""

    async def looked() -> bool:
        answer = await doors.grpc.call("GetWorkspace", pb.GetWorkspaceRequest(name=name))
        return bool(answer.workspace.state == FAILED)

    await eventually(looked)


@asynccontextmanager
async def worktree_lost(t: Try) -> Lost:
    name = await t.workspace("no-files", repository="")
    request = git_pb2.RemoveWorktreeRequest(uid=await t.uid(name))
    await call(t, "git", "RemoveWorktree", request)
    await failed(t.world.doors, name)
    yield t.world.doors, name


@asynccontextmanager
async def environment_lost(t: Try) -> Lost:
    name = await t.workspace("no-sandbox", repository="")
    uid = await t.uid(name)
    outside = t.stage.state / "git" / "worktrees" / uid / "outside"
    shutil.move(outside, t.world.folder / "outside")
    request = provider_pb2.ReleaseEnvironmentRequest(uid=uid)
    await call(t, "provider", "ReleaseEnvironment", request)
    await failed(t.world.doors, name)
    yield t.world.doors, name
    shutil.move(t.world.folder / "outside", outside)


@asynccontextmanager
async def operation_timed_out(t: Try) -> Lost:
    """Where no operation may take long, a delete cannot go on."""
    tight = t.tight()
    name = await tight.workspace("no-end", repository="")
    tight.stage.git.fail("RemoveWorktree", Unavailable("git is away"))
    await tight.door.ask("DeleteWorkspace", pb.DeleteWorkspaceRequest(name=name, force=True))
    await failed(tight.world.doors, name)
    tight.stage.heal()
    yield tight.world.doors, name


@asynccontextmanager
async def node_lost(t: Try) -> Lost:
    """Of a suite that has no gateway which believes that there is one node only: it is silent."""
    (folder := t.world.folder / "alone").mkdir()
    workspace = pb.Workspace(spec=registry_pb2.EnvironmentSpec())
    request = pb.CreateWorkspaceRequest(workspace_id="no-node", workspace=workspace)
    async with staged(folder) as stage, opened(stage, "several", **nodes(stage, "p")) as doors:
        made = await once_it_answers(doors, request)
        stage.provider.fail("GetCapabilities")
        await failed(doors, made.workspace.name)
        yield doors, made.workspace.name


LOST: Final[Mapping[str, Callable[[Try], AbstractAsyncContextManager[tuple[Doors, str]]]]] = {
    "WORKTREE_LOST": worktree_lost,
    "ENVIRONMENT_LOST": environment_lost,
    "OPERATION_TIMED_OUT": operation_timed_out,
    "NODE_LOST": node_lost,
}
"""By reason, without `ERROR_REASON_`: a workspace that is FAILED so."""
SLOW: Final = {"OPERATION_TIMED_OUT", "NODE_LOST"}
"""Those that take seconds."""
