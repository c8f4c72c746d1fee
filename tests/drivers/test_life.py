"""Workspaces from their making to their end, on every driver."""

import asyncio

import pytest

from cove.provider.v1 import provider_pb2
from cove.status import AlreadyExists, NotFound
from tests.drivers.standing import Stage, eventually

Found = provider_pb2.Observation


async def test_a_workspace_is_made_used_and_gone(stage: Stage) -> None:
    workspace = await stage.create(id="once")
    assert workspace.message.driver == stage.standing.name
    uid = workspace.message.uid
    assert (await workspace.execute("true")).exit_status == 0
    found = await stage.provisioned(uid)
    assert found
    assert (found.driver, found.state) == (stage.standing.name, Found.STATE_ACTIVE)
    await workspace.delete(force=True)
    assert await stage.provisioned(uid) is None
    with pytest.raises(NotFound):
        await workspace.execute("true")


async def test_one_that_is_not_used_runs_nothing(stage: Stage) -> None:
    async with await stage.create() as workspace:
        found = await stage.provisioned(workspace.message.uid)
        assert found
        assert found.state == Found.STATE_DORMANT


async def test_the_same_request_makes_one(stage: Stage) -> None:
    request_id = "6a6f3c0e-6f2b-4c7e-9a53-3b1ad9a6d001"
    made = await asyncio.gather(
        *(stage.create(id="twice", request_id=request_id) for _ in range(3))
    )
    assert len({each.message.uid for each in made}) == 1
    with pytest.raises(AlreadyExists):
        await stage.create(id="twice")
    await made[0].delete(force=True)


async def test_what_is_outside_the_worktree_stays_for_the_next_command(stage: Stage) -> None:
    async with await stage.create() as workspace:
        await workspace.execute(script="echo kept > ~/note; echo kept > /tmp/note", check=True)
        assert (await workspace.execute(script="cat ~/note /tmp/note")).text == "kept\nkept\n"


async def test_workspaces_do_not_see_each_other(stage: Stage) -> None:
    async with await stage.create() as one, await stage.create() as other:
        await one.execute(script="echo secret > mine; echo secret > /tmp/mine", check=True)
        seen = await other.execute(script="ls -A; ls /tmp")
        assert "mine" not in seen.text


async def test_nothing_of_the_host_is_inside(stage: Stage) -> None:
    async with await stage.create() as workspace:
        state, runtime = stage.suite.state, stage.suite.runtime
        seen = await workspace.execute(script=f"ls -d {state} {runtime} /root/.ssh 2>/dev/null")
        assert seen.text == ""
        assert (await workspace.execute(script="echo x > /usr/x")).exit_status != 0


async def test_the_network_is_none(stage: Stage) -> None:
    async with await stage.create() as workspace:
        seen = await workspace.execute(script="cat /proc/net/dev | grep -v -e lo: -e '|'")
        assert seen.text.strip() == ""


async def test_what_no_record_names_is_removed(stage: Stage) -> None:
    """As after a gateway that died between provision and record: an orphan."""
    async with await stage.create() as workspace:
        found = await stage.provisioned(workspace.message.uid)
        assert found
        async with stage.provider() as provider:
            request = provider_pb2.ReleaseEnvironmentRequest(uid=workspace.message.uid)
            answer = await provider.ReleaseEnvironment(request)
            assert answer.existed
            again = await provider.ReleaseEnvironment(request)
            assert not again.existed

        async def gone() -> bool:
            return await stage.provisioned(workspace.message.uid) is None

        await eventually(gone, "the provider lists it no longer")
