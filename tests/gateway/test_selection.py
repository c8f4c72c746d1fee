"""ListWorkspaces and WatchWorkspaces with a filter, in words of workspaces."""

from typing import Final

import pytest

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2 import Workspace
from cove.registry.v1 import registry_pb2
from gateway.convert import workspace
from gateway.selection import EXECUTION_FIELDS, FIELDS, recorded
from servicekit.filters.filters import Filter
from services.executor import selecting
from services.registry import fields as registry_fields
from tests.gateway.stage import Gateway, Stage
from tests.gateway.steps import run
from tests.gateway.test_watch import read, snapshot
from tests.servicekit.failing import failure

_SELECTS: Final = (
    *("name = demo", "name = workspaces/demo", 'name = "workspaces/d*"', "name != other"),
    *("branch = cove/demo", 'branch = "cove/*"', "base_commit:*", 'head_commit = "ab*"'),
    *("state = READY", "state != FAILED", "labels.team = web AND NOT labels:none"),
    *("name = x OR (labels:team AND -state=FAILED)", "resolved_time > 2020-01-01T00:00:00Z"),
    *("spec.repository = *app*", "uid:*", "name = x OR name = demo AND driver = local"),
)


def environment() -> registry_pb2.Environment:
    made = registry_pb2.Environment(
        name="environments/demo",
        uid="u",
        state=registry_pb2.Environment.STATE_READY,
        labels={"team": "web"},
        driver="local",
        head_commit="abc",
        spec=registry_pb2.EnvironmentSpec(repository="file:///app"),
        worktree=registry_pb2.EnvironmentWorktree(branch="cove/demo", base_commit="abc"),
    )
    made.worktree.resolved_time.GetCurrentTime()
    return made


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("text", _SELECTS)
def test_the_record_is_selected_if_the_workspace_is(text: str, negated: bool) -> None:
    text = f"NOT ({text})" if negated else text
    behind = Filter(recorded(text), registry_fields.FIELDS)
    assert Filter(text, FIELDS).matches(workspace(environment())) is not negated
    assert behind.matches(environment()) is not negated


def test_every_field_is_one_of_the_record() -> None:
    for name in FIELDS.names:
        assert Filter(recorded(f"{name}:*"), registry_fields.FIELDS), name


def test_nothing_that_callers_cannot_see_is_a_field() -> None:
    for name in FIELDS.names:
        assert name.split(".")[0] in Workspace.DESCRIPTOR.fields_by_name
    assert "spec.env" not in FIELDS.names


async def test_a_list_and_a_watch_are_of_the_selection(stage: Stage, gateway: Gateway) -> None:
    for name, team in (("a", "web"), ("b", "data"), ("c", "web")):
        request = stage.create(name)
        request.workspace.labels["team"] = team
        await gateway.workspaces.CreateWorkspace(request)
    listed = await gateway.workspaces.ListWorkspaces(
        pb.ListWorkspacesRequest(
            filter='branch = "cove/*" AND labels.team = web', order_by="create_time desc"
        )
    )
    assert [each.name for each in listed.workspaces] == ["workspaces/c", "workspaces/a"]
    call = gateway.workspaces.WatchWorkspaces(pb.WatchWorkspacesRequest(filter="labels.team = web"))
    found, _ = await snapshot(call)
    assert sorted(found) == ["workspaces/a", "workspaces/c"]
    update = pb.UpdateWorkspaceRequest(
        workspace=pb.Workspace(name="workspaces/a", labels={"team": "data"})
    )
    await gateway.workspaces.UpdateWorkspace(update)
    assert (await read(call)).delete.name == "workspaces/a"
    call.cancel()


async def test_what_is_wrong_is_told_in_words_of_workspaces(stage: Stage, gateway: Gateway) -> None:
    wrong = pb.ListWorkspacesRequest(filter="worktree.branch = x")
    failed = await failure(gateway.workspaces.ListWorkspaces(wrong))
    assert failed.reason == "FILTER_INVALID"
    assert "branch" in failed.info.metadata["allowed"]
    assert "worktree" not in failed.info.metadata["allowed"]
    watching = pb.WatchWorkspacesRequest(filter="name")
    failed = await failure(gateway.workspaces.WatchWorkspaces(watching))
    assert failed.reason == "FILTER_INVALID"
    ordered = pb.ListWorkspacesRequest(order_by="branch")
    failed = await failure(gateway.workspaces.ListWorkspaces(ordered))
    assert failed.reason == "ORDER_INVALID"


def test_executions_are_selected_by_what_the_executor_selects_by() -> None:
    assert EXECUTION_FIELDS == selecting.FIELDS


async def test_a_list_of_executions_is_of_the_selection(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    for script in ("true", "exit 3"):
        await run(gateway, script)

    async def selected(text: str) -> list[str]:
        request = pb.ListExecutionsRequest(parent="workspaces/demo", filter=text)
        answer = await gateway.executions.ListExecutions(request)
        return [each.name for each in answer.executions]

    (bad,) = await selected("exit.code = 3")
    assert bad.startswith("workspaces/demo/executions/")
    assert await selected(f'name = "{bad}"') == [bad]
    assert await selected(f"name = {bad.rpartition('/')[2]}") == [bad]
    assert bad not in await selected(f'-name = "{bad}"')
    by_time = pb.ListExecutionsRequest(parent="workspaces/demo", order_by="create_time desc")
    newest = await gateway.executions.ListExecutions(by_time)
    assert newest.executions[0].name == bad
    wrong = pb.ListExecutionsRequest(parent="workspaces/demo", order_by="state")
    assert (await failure(gateway.executions.ListExecutions(wrong))).reason == "ORDER_INVALID"
    wrong = pb.ListExecutionsRequest(parent="workspaces/demo", filter="exit.code = x")
    failed = await failure(gateway.executions.ListExecutions(wrong))
    assert (failed.reason, failed.info.metadata["position"]) == ("FILTER_INVALID", "13")
