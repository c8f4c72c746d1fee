"""Workspaces on several nodes: spread, routed to, lost with one, and made again elsewhere."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from cove.gateway.v1 import gateway_pb2 as pb
from cove.status import FailedPrecondition, InvalidArgument, Unavailable
from cove.workspace import Workspace
from tests.nodes.cluster import Cluster, running
from tests.suite.conftest import repository

__all__ = ["repository"]

NAMES: Final = ("north", "east", "west")
MANY: Final = int(os.environ.get("COVE_NODE_WORKSPACES", "300"))
READY, FAILED = pb.Workspace.STATE_READY, pb.Workspace.STATE_FAILED
WITHIN: Final = 10.0
"""Seconds in which what is lost is told of."""
STILL: Final = 7.0
BUSY: Final = 2.0
LIMIT: Final = 60.0
LOST: Final = "ERROR_REASON_NODE_LOST"


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(tmp_path, NAMES, tmp_path) as made:
        yield made


async def _states(cluster: Cluster) -> dict[str, pb.Workspace]:
    return {each.name: each.message async for each in cluster.client.workspaces.list()}


async def _at(cluster: Cluster) -> dict[str, str]:
    """On which node each uid is."""
    return {uid: name for name, node in cluster.nodes.items() for uid in await node.uids()}


async def _when(
    cluster: Cluster, holds: Callable[[dict[str, pb.Workspace]], bool], within: float = LIMIT
) -> dict[str, pb.Workspace]:
    until = time.monotonic() + within
    while True:
        found = await _states(cluster)
        if holds(found):
            return found
        assert time.monotonic() < until, {each.name: each.state for each in found.values()}
        await asyncio.sleep(0.1)


async def _spread(cluster: Cluster, repository: Path, count: int) -> list[Workspace]:
    """Every other one may be made again elsewhere."""
    room = asyncio.Semaphore(6)

    async def make(number: int) -> Workspace:
        async with room:
            return await cluster.client.workspaces.create(
                repository, id=f"w{number}", rebuild=bool(number % 2)
            )

    return [*await asyncio.gather(*map(make, range(count)))]


async def _lose_one(cluster: Cluster, repository: Path, count: int) -> None:
    """What the issue of nodes is about, with `count` workspaces."""
    made = await _spread(cluster, repository, count)
    where = await _at(cluster)
    share = Counter(where[each.message.uid] for each in made)
    assert set(share) == set(NAMES)
    assert max(share.values()) - min(share.values()) <= max(20, count // 4)
    await _compared(cluster, made, where)
    # One of those that may be made again has a commit at the origin, and work beyond it.
    gone = where[next(each for each in made if each.message.spec.rebuild).message.uid]
    saved = next(
        each for each in made if each.message.spec.rebuild and where[each.message.uid] == gone
    )
    await saved.execute(script="echo saved > saved", check=True)
    await saved.source.commit("Saved")
    await saved.source.push()
    await saved.execute(script="echo unsaved > unsaved", check=True)
    kept = next(each for each in made if where[each.message.uid] != gone)
    begun = time.monotonic()
    await cluster.nodes[gone].cut()
    lost = {
        each.name
        for each in made
        if where[each.message.uid] == gone and not each.message.spec.rebuild
    }

    def told(found: dict[str, pb.Workspace]) -> bool:
        return {name for name, each in found.items() if each.state == FAILED} == lost

    # Others work meanwhile.
    assert (await kept.execute("echo", "here")).text == "here\n"
    found = await _when(cluster, told, WITHIN)
    assert time.monotonic() - begun < WITHIN
    assert {found[name].failure.reason for name in lost} == {LOST}

    again = {each.message.uid for each in made if each.message.spec.rebuild}
    until = time.monotonic() + LIMIT
    while not again <= await _at_others(cluster, gone):
        assert time.monotonic() < until, "not made again elsewhere"
        await asyncio.sleep(0.2)
    seen = await saved.execute(script="cat saved; ls unsaved 2>/dev/null")
    assert seen.text == "saved\n"
    assert any("made again" in each for each in (await saved.refresh()).warnings)
    with pytest.raises((FailedPrecondition, Unavailable)):
        await cluster.client.workspaces.named(sorted(lost)[0].rpartition("/")[2]).execute("true")
    # And when the node comes back, so do those that waited for it; what moved is not there twice.
    await cluster.nodes[gone].start()
    await _when(cluster, lambda found: all(each.state == READY for each in found.values()))
    waited = cluster.client.workspaces.named(sorted(lost)[0].rpartition("/")[2])
    assert (await waited.execute("cat", "README")).text == "hello\n"
    until = time.monotonic() + LIMIT
    moved = {each.message.uid for each in made if each.message.spec.rebuild}
    moved = {uid for uid in moved if where[uid] == gone}
    until = time.monotonic() + LIMIT
    while moved & await cluster.nodes[gone].uids():
        assert time.monotonic() < until, "what was made again elsewhere is on its old node, too"
        await asyncio.sleep(0.2)


async def _compared(cluster: Cluster, made: list[Workspace], where: dict[str, str]) -> None:
    """Those of one node are, and of several it is said that they cannot be."""
    at: dict[str, list[Workspace]] = {}
    for each in made:
        at.setdefault(where[each.message.uid], []).append(each)
    alone, *others = at.values()
    answer = await cluster.client.workspaces.preview_conflicts([alone[0].id, alone[1].id])
    assert [each.error for each in answer.workspaces] == ["", ""]
    with pytest.raises(InvalidArgument, match="node"):
        await cluster.client.workspaces.preview_conflicts([alone[0].id, others[0][0].id])


async def _at_others(cluster: Cluster, gone: str) -> set[str]:
    others = [node for name, node in cluster.nodes.items() if name != gone]
    return {uid for node in others for uid in await node.uids()}


async def test_a_node_is_lost_and_comes_back(cluster: Cluster, repository: Path) -> None:
    await _lose_one(cluster, repository, 12)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_one_of_three_nodes_is_lost_with_many(cluster: Cluster, repository: Path) -> None:
    await _lose_one(cluster, repository, MANY)


@pytest.mark.long
async def test_a_gateway_that_stood_still_takes_no_node_for_lost(
    cluster: Cluster, repository: Path
) -> None:
    """When it goes on it has heard of no node for long, and asks: that alone says nothing."""
    made = await _spread(cluster, repository, 6)
    where = await _at(cluster)
    gateway = cluster.processes["gateway"]
    providers = [node.tools["provider"] for node in cluster.nodes.values()]
    gateway.send(signal.SIGSTOP)
    for each in providers:
        each.send(signal.SIGSTOP)
    await asyncio.sleep(STILL)  # The time for which it stands still is what is tested.
    gateway.send(signal.SIGCONT)
    # It reconciles once a second, and the nodes are still busy with something else.
    until = time.monotonic() + BUSY
    while time.monotonic() < until:
        assert {each.state for each in (await _states(cluster)).values()} == {READY}
        await asyncio.sleep(0.1)
    for each in providers:
        each.send(signal.SIGCONT)
    for workspace in made:
        assert (await workspace.execute("echo", "here")).text == "here\n"
        assert not (await workspace.refresh()).warnings
    assert await _at(cluster) == where
