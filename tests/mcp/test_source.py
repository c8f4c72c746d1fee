"""The git side: diffs that are cut, pages of commits, and what is refused."""

from pathlib import Path

import pytest

from tests.mcp.agent import Agent, Refused
from tests.support.repository import git

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_long_diff_is_cut_and_what_is_cut_is_named(agent: Agent, fresh: str) -> None:
    script = "for f in a b c; do seq 1000 > $f; done; head -c 100 /dev/zero > zero"
    await agent.data("exec", workspace=fresh, command=script)
    says, patch = await agent.texts("diff", workspace=fresh, max_bytes=6000)
    assert len(patch.encode()) <= 6000
    assert says.splitlines()[0] == "4 files differ, +3000 -0 lines"
    assert {"binary: zero", "cut: b", "cut: c"} <= set(says.splitlines())
    assert "paths" in says.splitlines()[-1]
    says, patch = await agent.texts("diff", workspace=fresh, paths=["c"], max_bytes=6000)
    assert says == "1 files differ, +1000 -0 lines"
    assert patch.count("\n+") == 1001


async def test_ranges_say_what_is_compared(agent: Agent, fresh: str) -> None:
    await agent.text("write", workspace=fresh, path="new", content="1\n")
    commit = (await agent.data("commit", workspace=fresh, message="New"))["commit"]["id"]
    assert await agent.texts("diff", workspace=fresh) == ["0 files differ, +0 -0 lines"]
    for asked in ("base..head", "base..work", f"origin/main..{commit}"):
        assert "+++ b/new" in await agent.text("diff", workspace=fresh, range=asked)
    with pytest.raises(Refused) as refused:
        await agent.text("diff", workspace=fresh, range="nonsense")
    assert refused.value.fields[0].startswith("range: ")


async def test_a_status_with_many_files_is_cut(agent: Agent, fresh: str) -> None:
    await agent.data("exec", workspace=fresh, command="for i in $(seq 30); do touch f$i; done")
    status = await agent.data("status", workspace=fresh, max_entries=10)
    assert (len(status["entries"]), status["total"], status["truncated"]) == (10, 30, True)
    assert "[20 more are not shown" in await agent.text("status", workspace=fresh, max_entries=10)


async def test_commits_are_listed_in_pages(agent: Agent, fresh: str) -> None:
    for number in range(3):
        await agent.text("write", workspace=fresh, path="f", content=str(number))
        message = f"Number {number}\n\n{'long ' * 1000}"
        await agent.data("commit", workspace=fresh, message=message)
    found, offset = list[str](), 0
    while offset is not None:
        page = await agent.data("log", workspace=fresh, limit=3, offset=offset)
        assert all(len(each["message"]) <= 2000 for each in page["commits"])
        found += [each["message"].splitlines()[0] for each in page["commits"]]
        offset = page["next_offset"]
    assert found == ["Number 2", "Number 1", "Number 0", "First"]


async def test_a_commit_is_on_condition_of_its_head(agent: Agent, fresh: str) -> None:
    await agent.text("write", workspace=fresh, path="f", content="1")
    with pytest.raises(Refused) as refused:
        await agent.data("commit", workspace=fresh, message="M", expected_head="0" * 40)
    assert refused.value.said["reason"] == "HEAD_MOVED"
    with pytest.raises(Refused) as refused:
        await agent.data("commit", workspace=fresh, message="M", author="nobody")
    assert refused.value.fields[0].startswith("author: ")


async def test_nothing_to_commit_is_told(agent: Agent, fresh: str) -> None:
    with pytest.raises(Refused) as refused:
        await agent.data("commit", workspace=fresh, message="Nothing")
    assert refused.value.said["reason"] == "NOTHING_TO_COMMIT"
    assert "workspace_status" in refused.value.said["remedy"]


async def test_a_workspace_of_no_repository_has_nowhere_to_push_to(agent: Agent) -> None:
    made = await agent.data("create")
    await agent.text("write", workspace=made["id"], path="f", content="1")
    await agent.data("commit", workspace=made["id"], message="First")
    with pytest.raises(Refused) as refused:
        await agent.text("push", workspace=made["id"])
    await agent.text("delete", workspace=made["id"], force=True)
    assert refused.value.said["reason"] == "NO_REMOTE"


async def test_a_push_overwrites_nothing(agent: Agent, fresh: str, origin: Path) -> None:
    other = (await agent.data("create", repository=str(origin)))["id"]
    for workspace in (fresh, other):
        await agent.text("write", workspace=workspace, path="f", content=workspace)
        await agent.data("commit", workspace=workspace, message=workspace)
    pushed = await agent.data("push", workspace=fresh, branch="shared")
    with pytest.raises(Refused) as refused:
        await agent.text("push", workspace=other, branch="shared")
    await agent.text("delete", workspace=other, force=True)
    assert refused.value.said["reason"] == "NON_FAST_FORWARD"
    assert git(origin, "rev-parse", "shared").strip() == pushed["commit"]
