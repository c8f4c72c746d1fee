"""A whole task, as an agent does it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.mcp.agent import Agent, Refused, over_stdio, serving
from tests.support.repository import git, make_repository
from tests.support.suite import Suite

Connect = Callable[[Suite], AbstractAsyncContextManager[Agent]]

pytestmark = pytest.mark.asyncio(loop_scope="package")

CLEAN = {"PYTHONDONTWRITEBYTECODE": "1"}
BROKEN = "def add(a, b):\n    return a - b\n"
TEST = "python3 -c 'from calc import add; assert add(2, 2) == 4'"


@asynccontextmanager
async def over_http(suite: Suite) -> AsyncIterator[Agent]:
    async with serving(suite) as served, served.agent() as agent:
        yield agent


@pytest.mark.parametrize("connect", [over_stdio, over_http])
async def test_a_failing_test_is_made_to_pass_and_pushed(
    suite: Suite, tmp_path: Path, connect: Connect
) -> None:
    origin = tmp_path / "calc"
    make_repository(origin, {"calc.py": BROKEN, "README.md": "# Calc\n"})
    name = f"calc-{tmp_path.name[-1]}"
    async with connect(suite) as agent:
        made = await agent.data("create", repository=str(origin), id=name, env=CLEAN)
        assert (made["state"], made["branch"]) == ("ready", f"cove/{name}")
        listed = await agent.text("list_files", workspace=name)
        assert f"file {len(BROKEN)} bytes: calc.py" in listed.splitlines()
        _, content = await agent.texts("read", workspace=name, path="calc.py")
        assert content == BROKEN
        failed = await agent.data("exec", workspace=name, command=TEST)
        assert failed["exit_status"] == 1
        assert "AssertionError" in failed["output"]
        await agent.text("edit", workspace=name, path="calc.py", old_text="a - b", new_text="a + b")
        await agent.text("write", workspace=name, path="docs/add.md", content="Adds.\n")
        assert (await agent.data("exec", workspace=name, command=TEST))["exit_status"] == 0
        says, patch = await agent.texts("diff", workspace=name)
        assert says == "2 files differ, +2 -1 lines"
        assert "-    return a - b\n+    return a + b\n" in patch
        status = await agent.data("status", workspace=name)
        changed = {entry["path"]: entry["state"] for entry in status["entries"]}
        assert changed["calc.py"] == "modified"
        assert changed["docs/add.md"] == "untracked"
        committed = await agent.data(
            "commit", workspace=name, message="Add, and say so", author="Ada <ada@example.org>",
            paths=["calc.py", "docs"],
        )  # fmt: skip
        log = await agent.data("log", workspace=name)
        assert [each["message"] for each in log["commits"]] == ["Add, and say so", "First"]
        pushed = await agent.data("push", workspace=name)
        assert pushed["commit"] == committed["commit"]["id"] == log["commits"][0]["id"]
        await agent.text("delete", workspace=name, force=True)
        with pytest.raises(Refused) as refused:
            await agent.text("status", workspace=name)
    assert refused.value.said["reason"] == "WORKSPACE_NOT_FOUND"
    assert git(origin, "log", "-1", "--format=%an %s", f"cove/{name}") == "Ada Add, and say so\n"
    assert git(origin, "show", f"cove/{name}:calc.py") == BROKEN.replace("-", "+")


async def test_unsaved_work_is_brought_back(agent: Agent, fresh: str) -> None:
    await agent.text("write", workspace=fresh, path="unsaved", content="1\n")
    deleted = await agent.data("delete", workspace=fresh)
    assert deleted["kept_until"]
    assert (await agent.data("status", workspace=fresh))["workspace"]["state"] == "deleted"
    listed = await agent.data("list", deleted=True)
    assert fresh in [each["id"] for each in listed["workspaces"]]
    assert fresh not in await agent.text("list")
    assert (await agent.data("undelete", workspace=fresh))["state"] == "ready"
    assert (await agent.texts("read", workspace=fresh, path="unsaved"))[1] == "1\n"


async def test_what_was_not_committed_is_left_out_with_a_warning(
    agent: Agent, tmp_path: Path
) -> None:
    make_repository(tmp_path / "dirty")
    (tmp_path / "dirty" / "new").write_text("")
    made = await agent.data("create", repository=str(tmp_path / "dirty"))
    assert made["warnings"]
    text = await agent.text("delete", workspace=made["id"])
    assert text == f"{made['id']} removed"


async def test_a_list_is_paged(agent: Agent, fresh: str, origin: Path) -> None:
    other = (await agent.data("create", repository=str(origin)))["id"]
    found, offset = list[str](), 0
    while offset is not None:
        page = await agent.data("list", limit=1, offset=offset)
        assert len(page["workspaces"]) == 1
        found += [each["id"] for each in page["workspaces"]]
        offset = page["next_offset"]
    assert found == sorted(found)
    assert {fresh, other} <= set(found)
    assert "[more workspaces: call again with offset 1]" in await agent.text("list", limit=1)
    await agent.text("delete", workspace=other, force=True)
