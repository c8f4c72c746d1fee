"""Services that are killed, on every driver: what was told stays, and work goes on."""

import pytest

from tests.drivers.standing import Stage


@pytest.mark.parametrize("service", ["provider", "executor", "gateway"])
async def test_a_service_is_killed_between_two_commands(stage: Stage, service: str) -> None:
    async with await stage.create() as workspace:
        await workspace.execute(script="echo before > file", check=True, id="before")
        await stage.suite.kill(service)
        done = await workspace.execute(script="cat file; echo after >> file", check=True)
        assert done.text == "before\n"
        known = await workspace.executions.named("before").refresh()
        assert known.exit.code == 0


@pytest.mark.parametrize("service", ["executor", "gateway"])
async def test_a_command_outlives_the_services(stage: Stage, service: str) -> None:
    if "outlives_services" not in stage.can:
        pytest.skip(f"{stage.standing.name} has no outlives_services; refused at create")
    async with await stage.create() as workspace:
        script = "echo begun; sleep 2; echo done; exit 7"
        execution = await workspace.start(script=script, id="long")
        await stage.suite.kill(service)
        ended = await workspace.executions.named(execution.id).wait()
        assert ended.exit.code == 7
        read = b"".join([getattr(each, "data", b"") async for each in execution.output()])
        assert read == b"begun\ndone\n"


async def test_a_workspace_is_deleted_while_a_command_runs(stage: Stage) -> None:
    workspace = await stage.create()
    await workspace.start("sleep", "600")
    await workspace.delete(force=True)
    assert await stage.provisioned(workspace.message.uid) is None
