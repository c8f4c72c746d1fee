"""Gateways side by side, of which one is killed together with its registry."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any, Final

import pytest
import pytest_asyncio

from cove.gateway.v1 import gateway_pb2 as pb
from tests.gateway.stage import LIMIT, Gateway, Stage, State, eventually, staged
from tests.gateway.steps import Step, begun, run, steps
from tests.gateway.test_crash import CREATE, DELETE, UNDO
from tests.gateway.test_forks import FORK
from tests.registry.postgres import running

SESSION: Final = "session"
LEASE: Final = 2.0
"""Seconds that the one that is killed holds what it was at."""
READY: Final = State.STATE_READY

TABLES: Final = {"create": CREATE, "undo": UNDO, "delete": DELETE, "fork": FORK}
METHODS: Final = {
    "create": "CreateWorkspace",
    "undo": "CreateWorkspace",
    "delete": "DeleteWorkspace",
    "fork": "ForkWorkspace",
}
FEW: Final = [
    Step("create-provision", "provider", "ProvisionEnvironment", done=True),
    Step("delete-worktree", "git", "RemoveWorktree"),
    Step("fork-record", "registry", "UpdateEnvironment", done=True),
    Step("undo-sandbox", "provider", "ReleaseEnvironment", done=True),
]
ALL: Final = [step for kind, table in TABLES.items() for step in steps(table, kind)]


@pytest_asyncio.fixture(scope="module", loop_scope=SESSION)
async def apart(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """One registry, which is started again, or two on one PostgreSQL, of which one stays dead."""
    with ExitStack() as stack:
        postgres = request.param == "postgres"
        database = stack.enter_context(running()).fresh() if postgres else ""
        folder = tmp_path_factory.mktemp("apart")
        async with staged(folder, apart=True, database=database) as stage:
            yield stage


@pytest.mark.parametrize("apart", ["postgres"], indirect=True)
async def test_the_other_gateway_ends_what_one_was_at(apart: Stage) -> None:
    await _killed_mid_saga(apart, FEW)


@pytest.mark.long
@pytest.mark.parametrize("apart", ["sqlite", "postgres"], indirect=True)
async def test_the_other_gateway_ends_whatever_one_was_at(apart: Stage) -> None:
    await _killed_mid_saga(apart, ALL)


async def _killed_mid_saga(stage: Stage, table: list[Step]) -> None:
    async with stage.gateway(**({"registry": stage.beside} if stage.beside else {})) as other:
        await other.workspaces.CreateWorkspace(stage.create("source"))
        for step in table:
            if _kind(step) == "delete":
                await other.workspaces.CreateWorkspace(stage.create(step.id))
        requests = {step: _request(stage, step) for step in table}
        async with stage.gateway_process(LEASE) as victim:
            ended = []
            for kind, method in METHODS.items():
                some = {step: each for step, each in requests.items() if _kind(step) == kind}
                if some:
                    ended.append(await begun(stage, victim, method, some))
            await victim.kill()
            await stage.kill_registry()
            if not stage.beside:
                await stage.start_registry()
            killed = time.monotonic()
            for each in ended:
                await each
        stage.reset()
        await eventually(lambda: _at_rest(stage))
        assert time.monotonic() - killed < LEASE + LIMIT
        assert await _states(stage) == {
            "source": READY,
            **{step.id: READY for step in table if _stays(step)},
        }
        for step, request in requests.items():
            await _repeated(other, step, request)
        for record in await stage.records():
            name = record.name.replace("environments/", "workspaces/")
            await other.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=name, force=True))
        assert await stage.empty()
    if stage.beside:
        await stage.start_registry()


def _stays(step: Step) -> bool:
    """Whether a workspace is there when it is over; what never came to the registry did nothing."""
    unheard = step.rpc in ("RegisterEnvironment", "ClaimOperation") and not step.done
    return unheard if _kind(step) == "delete" else _kind(step) != "undo" and not unheard


async def _repeated(other: Gateway, step: Step, request: Any) -> None:
    """Its caller repeats it at the other gateway."""
    match _kind(step):
        case "create" | "fork":
            again = await getattr(other.workspaces, METHODS[_kind(step)])(request)
            assert again.workspace.state == pb.Workspace.STATE_READY, step
            assert await run(other, name=f"workspaces/{step.id}") == "hello\n", step
        case "delete":
            await other.workspaces.DeleteWorkspace(request)


async def _at_rest(stage: Stage) -> bool:
    """Nothing goes on, and what tools have is what records tell of, once each."""
    if not await stage.settled():
        return False
    uids = sorted(each.uid for each in await stage.records())
    left = await stage.left()
    return all(
        sorted(each.split()[1] for each in left if each.startswith(kind)) == uids
        for kind in ("worktree ", "provisioned ")
    )


async def _states(stage: Stage) -> dict[str, int]:
    return {each.name.partition("/")[2]: each.state for each in await stage.records()}


def _request(stage: Stage, step: Step) -> Any:
    request_id = str(uuid.uuid4())
    match _kind(step):
        case "create":
            return stage.create(step.id, request_id=request_id)
        case "undo":
            return stage.create(step.id, spec={"revision": "no-such"}, request_id=request_id)
        case "delete":
            return pb.DeleteWorkspaceRequest(name=f"workspaces/{step.id}", request_id=request_id)
        case _:
            return pb.ForkWorkspaceRequest(
                name="workspaces/source", workspace_id=step.id, request_id=request_id
            )


def _kind(step: Step) -> str:
    return step.id.partition("-")[0]
