"""Commits of workspaces that may be made again: kept on a second node, and back from there."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import grpc
import pytest
import pytest_asyncio

from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.workspace import Workspace
from tests.git.parts import run_git
from tests.nodes.cluster import Cluster, Node, running
from tests.suite.conftest import repository

__all__ = ["repository"]

NAMES: Final = ("north", "east", "west")
LIMIT: Final = 60.0
ONLY: Final = git_pb2.Worktree.STATE_COMMITS_ONLY

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with running(tmp_path_factory.mktemp("c"), NAMES, Path("/")) as made:
        yield made


async def _worktrees(node: Node) -> dict[str, git_pb2.Worktree]:
    async with grpc.aio.insecure_channel(f"unix:{node.runtime}/git") as channel:
        request = git_pb2.ListWorktreesRequest(page_size=1000)
        answer = await GitServiceStub(channel).ListWorktrees(request)
    return {each.uid: each for each in answer.worktrees}


async def _where(
    cluster: Cluster, workspace: Workspace, without: tuple[str, ...] = ()
) -> tuple[str, dict[str, str]]:
    """The node that it is on, and those that have a copy with the commit of it."""
    home, copies = "", {}
    for name, node in cluster.nodes.items():
        if name in without:
            continue
        found = (await _worktrees(node)).get(workspace.message.uid)
        if found is not None and found.state == ONLY:
            copies[name] = found.kept_commit
        elif found is not None:
            home = name
    return home, copies


async def _until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    until = time.monotonic() + LIMIT
    while not await holds():
        assert time.monotonic() < until, what
        await asyncio.sleep(0.1)


async def _copied(
    cluster: Cluster, workspace: Workspace, commit: str, without: tuple[str, ...] = ()
) -> None:
    async def holds() -> bool:
        _, copies = await _where(cluster, workspace, without)
        return [*copies.values()] == [commit]

    await _until(holds, f"{commit} is on a second node")


async def _back(cluster: Cluster, workspace: Workspace, home: str, gone: tuple[str, ...]) -> str:
    async def holds() -> bool:
        there = (await _where(cluster, workspace, gone))[0]
        state = (await workspace.refresh()).state
        return there not in ("", home) and state == pb.Workspace.STATE_READY

    await _until(holds, "it is made again elsewhere")
    return (await _where(cluster, workspace, gone))[0]


async def _commit(workspace: Workspace, name: str) -> str:
    await workspace.execute(script=f"echo {name} > {name}", check=True)
    answer = await workspace.source.commit(name)
    assert not answer.warnings
    return answer.commit.id


async def _has_left(cluster: Cluster, workspace: Workspace, home: str) -> bool:
    return workspace.message.uid not in await _worktrees(cluster.nodes[home])


async def _nothing_is_left(cluster: Cluster, workspace: Workspace) -> None:
    async def holds() -> bool:
        return await _where(cluster, workspace) == ("", {})

    await _until(holds, "nothing is left of it")


@pytest.mark.long
async def test_a_commit_that_nobody_pushed_comes_back(cluster: Cluster, repository: Path) -> None:
    workspace = await cluster.client.workspaces.create(repository, rebuild=True)
    plain = await cluster.client.workspaces.create(repository)
    await _commit(plain, "plain")
    commit = await _commit(workspace, "saved")
    # It is there when the commit is answered.
    home, copies = await _where(cluster, workspace)
    assert [*copies.values()] == [commit]
    (second,) = copies
    assert second != home
    assert (await _where(cluster, plain))[1] == {}
    # One that was made inside is found by the reconciler.
    ada = "-c user.name=Ada -c user.email=ada@example.org"
    script = (
        f"set -e; echo inside > inside; git add -A; git {ada} commit -qm inside; git rev-parse HEAD"
    )
    inside = (await workspace.execute(script=script, check=True)).text.strip()
    assert inside != commit
    await _copied(cluster, workspace, inside)
    await cluster.nodes[home].cut()
    now = await _back(cluster, workspace, home, (home,))
    assert now == second
    assert workspace.message.head_commit == inside
    seen = await workspace.execute(script="cat saved inside; git rev-parse HEAD", check=True)
    assert seen.text == f"saved\ninside\n{inside}\n"
    await workspace.source.push()
    assert run_git(repository, "rev-parse", workspace.message.branch) == inside
    # Now the third one has it.
    await _copied(cluster, workspace, inside, (home,))
    assert home not in (await _where(cluster, workspace, (home,)))[1]
    # Its old node gives up what it has, as all that was committed there is elsewhere.
    await cluster.nodes[home].start()
    await _until(partial(_has_left, cluster, workspace, home), "it is not twice there")
    await workspace.delete(force=True)
    await plain.delete(force=True)
    await _nothing_is_left(cluster, workspace)
    await _nothing_is_left(cluster, plain)


@pytest.mark.long
async def test_where_the_origin_cannot_be_asked_all_is_sent(
    cluster: Cluster, repository: Path
) -> None:
    workspace = await cluster.client.workspaces.create(repository, rebuild=True)
    repository.rename(repository.with_name("away"))
    commit = await _commit(workspace, "saved")
    _, copies = await _where(cluster, workspace)
    assert [*copies.values()] == [commit]
    await workspace.delete(force=True)
    await _nothing_is_left(cluster, workspace)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_second_node_that_is_gone_is_replaced(cluster: Cluster, repository: Path) -> None:
    workspace = await cluster.client.workspaces.create(rebuild=True)
    commit = await _commit(workspace, "saved")
    home, (second,) = await _where(cluster, workspace)
    await cluster.nodes[second].cut()
    await _copied(cluster, workspace, commit, (second,))
    (third,) = (await _where(cluster, workspace, (second,)))[1]
    later = await _commit(workspace, "later")
    await _copied(cluster, workspace, later, (second,))
    # It is back: what it kept is of no use any more.
    await cluster.nodes[second].start()
    await _copied(cluster, workspace, later)
    await cluster.nodes[second].cut()
    await cluster.nodes[home].cut()
    gone = (second, home)
    assert await _back(cluster, workspace, home, gone) == third
    assert (await workspace.execute("cat", "saved", "later")).text == "saved\nlater\n"
    assert workspace.message.head_commit == later
    # No other node is there: who commits is told.
    await workspace.execute(script="echo alone > alone", check=True)
    answer = await workspace.source.commit("Alone")
    assert any("second node" in each for each in answer.warnings)
    await cluster.nodes[second].start()
    await _copied(cluster, workspace, answer.commit.id, (home,))
    await cluster.nodes[home].start()
    await _until(partial(_has_left, cluster, workspace, home), "it is not twice there")
    await workspace.delete(force=True)
    await _nothing_is_left(cluster, workspace)
