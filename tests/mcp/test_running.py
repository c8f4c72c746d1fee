"""Commands: bounded answers, all of a long output, and calls that end before the command."""

import asyncio

import pytest

from tests.mcp.agent import Agent, Refused
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

# Characters of one to four bytes, so that a page seldom ends between two.
LINE = "x\u00e4\u20ac\U0001f642\n"
MANY = 30_000


async def pages(agent: Agent, workspace: str, execution: str, size: int) -> str:
    """All of the output, page by page."""
    found, offset = list[str](), 0
    while True:
        page = await agent.data(
            "output", workspace=workspace, execution=execution, offset=offset, max_bytes=size
        )
        assert page["offset"] == offset
        assert len(page["output"].encode()) == page["next_offset"] - offset <= size
        found.append(page["output"])
        offset = page["next_offset"]
        if not page["more"]:
            assert page["state"] == "ended"
            return "".join(found)


async def test_paging_reads_all_of_a_long_output(agent: Agent, fresh: str) -> None:
    await agent.text("write", workspace=fresh, path="long", content=LINE * MANY)
    ran = await agent.data("exec", workspace=fresh, command="cat long", max_bytes=1000)
    assert ran["exit_status"] == 0
    assert ran["more"]
    assert ran["output_bytes"] == len(LINE.encode()) * MANY
    assert len(ran["output"].encode()) < 1200
    assert f"workspace_output with offset {ran['next_offset']}" in ran["output"]
    assert ran["output"].endswith(LINE)
    assert await pages(agent, fresh, ran["execution"], 20_001) == LINE * MANY


async def test_no_answer_is_longer_than_its_bound(agent: Agent, fresh: str) -> None:
    noise = "head -c 3000000 /dev/urandom"
    ran = await agent("exec", workspace=fresh, command=noise, max_bytes=2000)
    assert ran.structured_content
    assert len(ran.structured_content["output"]) < 2500
    for arguments in ({}, {"offset": -5000}, {"offset": 1_000_000, "wait_seconds": 5}):
        page = await agent.data(
            "output",
            workspace=fresh,
            execution=ran.structured_content["execution"],
            max_bytes=3000,
            **arguments,
        )
        assert 0 < len(page["output"]) <= 3000
    with pytest.raises(Refused) as refused:
        await agent.data("exec", workspace=fresh, command=noise, max_bytes=10_000_000)
    assert refused.value.fields == ["max_bytes: Input should be less than or equal to 200000"]


async def test_both_streams_come_in_the_order_of_writing(agent: Agent, fresh: str) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done"
    ran = await agent.data("exec", workspace=fresh, command=script)
    assert ran["output"] == "".join(f"out {i}\nerr {i}\n" for i in (1, 2, 3))


async def test_directory_and_variables_are_the_callers(agent: Agent, fresh: str) -> None:
    ran = await agent.data(
        "exec", workspace=fresh, command="pwd; echo $WHO", cwd="src", env={"WHO": "ada"}
    )
    assert ran["output"].endswith("/src\nada\n")


async def test_a_call_that_ends_first_says_how_to_go_on(agent: Agent, fresh: str) -> None:
    script = "echo begun; until test -e go; do sleep 0.05; done; echo done; exit 3"
    asked = {"workspace": fresh, "command": script, "execution": "goes-on"}
    texts: list[str] = []
    async with asyncio.timeout(60):
        while len(texts) < 2:  # Until it has begun to write, which may take longer than a call.
            texts = await agent.texts("exec", **asked, wait_seconds=1)
    execution = texts[0].partition('execution "')[2].partition('"')[0]
    assert (texts[0].startswith("still running"), execution) == (True, "goes-on")
    assert "workspace_output with offset 6 and wait_seconds" in texts[0]
    assert texts[1] == "begun\n"
    listed = await agent.data("executions", workspace=fresh)
    assert listed["executions"][0]["state"] == "running"
    waiting = asyncio.create_task(
        agent.data("output", workspace=fresh, execution=execution, offset=6, wait_seconds=60)
    )
    await agent.text("write", workspace=fresh, path="go", content="")
    rest = await waiting
    assert (rest["output"], rest["exit_status"], rest["state"]) == ("done\n", 3, "ended")


async def test_a_timeout_ends_the_command_and_is_told(agent: Agent, fresh: str) -> None:
    script = "echo begun; exec sleep 600"
    says, output = await agent.texts("exec", workspace=fresh, command=script, timeout_seconds=3)
    assert says.startswith("exit status 124 (ended by its timeout): ")
    assert output == "begun\n"


async def test_a_command_is_killed(agent: Agent, fresh: str) -> None:
    ran = await agent.data("exec", workspace=fresh, command="exec sleep 600", wait_seconds=0)
    assert (ran["state"], ran["exit_status"]) == ("running", None)
    where = {"workspace": fresh, "execution": ran["execution"]}
    await agent.text("kill", **where, signal="KILL")
    ended = await agent.data("output", **where, wait_seconds=30)
    assert (ended["exit_status"], ended["ended_by"]) == (137, "signal 9")
    with pytest.raises(Refused) as refused:
        await agent.text("kill", **where)
    assert refused.value.said["reason"] == "EXECUTION_ENDED"


async def test_an_id_runs_its_command_once(agent: Agent, fresh: str) -> None:
    ran = [
        await agent.data("exec", workspace=fresh, command="echo 1 | tee -a ran", execution="once")
        for _ in range(2)
    ]
    assert ran[0] == ran[1]
    assert (await agent.texts("read", workspace=fresh, path="ran"))[1] == "1\n"
    with pytest.raises(Refused) as refused:
        await agent.data("exec", workspace=fresh, command="true", execution="once")
    assert refused.value.said["reason"] == "EXECUTION_EXISTS"


async def test_a_cancelled_call_leaves_its_command_running(agent: Agent, fresh: str) -> None:
    script = "echo begun > begun; until test -e go; do sleep 0.05; done; echo done"
    calling = asyncio.create_task(
        agent("exec", workspace=fresh, command=script, execution="left", wait_seconds=600)
    )
    async with asyncio.timeout(30):
        while (await agent("read", workspace=fresh, path="begun")).is_error:
            pass  # Each call waits for an answer.
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    (listed,) = (await agent.data("executions", workspace=fresh))["executions"]
    assert (listed["execution"], listed["state"]) == ("left", "running")
    await agent.text("write", workspace=fresh, path="go", content="")
    ended = await agent.data("output", workspace=fresh, execution="left", wait_seconds=60)
    assert (ended["output"], ended["exit_status"]) == ("done\n", 0)


async def test_executions_are_listed_newest_first(agent: Agent, fresh: str) -> None:
    for number in range(3):
        await agent.data("exec", workspace=fresh, command=f"echo {number}; exit {number}")
    page = await agent.data("executions", workspace=fresh, limit=2)
    assert [each["exit_status"] for each in page["executions"]] == [2, 1]
    page = await agent.data("executions", workspace=fresh, limit=2, offset=page["next_offset"])
    assert [each["command"] for each in page["executions"]] == ["echo 0; exit 0"]
    assert page["next_offset"] is None


@pytest.mark.parametrize(
    ("tool", "arguments", "reason"),
    [
        ("exec", {"command": "true", "cwd": "none"}, "CWD_NOT_FOUND"),
        ("exec", {"command": "true", "workspace": "none"}, "WORKSPACE_NOT_FOUND"),
        ("output", {"execution": "none"}, "EXECUTION_NOT_FOUND"),
        ("kill", {"execution": "none"}, "EXECUTION_NOT_FOUND"),
    ],
)
async def test_what_is_not_there_is_told_with_a_remedy(
    agent: Agent, fresh: str, tool: str, arguments: dict[str, str], reason: str
) -> None:
    with pytest.raises(Refused) as refused:
        await agent.text(tool, **{"workspace": fresh, **arguments})
    assert refused.value.said["reason"] == reason
    assert refused.value.said["code"] == "NOT_FOUND"
    assert "workspace_" in refused.value.said["remedy"]


async def test_an_offset_beyond_the_end_is_told(agent: Agent, fresh: str) -> None:
    ran = await agent.data("exec", workspace=fresh, command="echo 1")
    where = {"workspace": fresh, "execution": ran["execution"]}
    with pytest.raises(Refused) as refused:
        await agent.text("output", **where, offset=3)
    assert refused.value.said["reason"] == "OFFSET_OUT_OF_RANGE"
    assert await agent.text("output", **where, offset=2)


async def test_a_gateway_that_is_started_again_is_found(
    agent: Agent, fresh: str, suite: Suite
) -> None:
    await suite.kill("gateway")
    assert (await agent.data("exec", workspace=fresh, command="echo 1"))["output"] == "1\n"


async def test_lists_are_of_what_a_filter_selects(agent: Agent, fresh: str) -> None:
    for command in ("true", "exit 3"):
        await agent.data("exec", workspace=fresh, command=command)
    found = await agent.data("executions", workspace=fresh, filter="exit.code = 3")
    assert [each["exit_status"] for each in found["executions"]] == [3]
    found = await agent.data("list", filter=f"name = {fresh} AND state = READY")
    assert [each["id"] for each in found["workspaces"]] == [fresh]
    for tool, arguments in (("executions", {"workspace": fresh}), ("list", {})):
        with pytest.raises(Refused) as refused:
            await agent.data(tool, filter="state = GREAT", **arguments)
        assert "READY" in str(refused.value) or "RUNNING" in str(refused.value)
