"""How long an answer takes tells no more than its words."""

import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import pytest

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub, WorkspaceServiceStub
from tests.access.stage import MISSING, THERE, Stage, bearer
from tests.servicekit.failing import failure

pytestmark = pytest.mark.long

SAMPLES: Final = 1500
SIGMAS: Final = 4.5
"""One run of more than 100,000 fails where there is no difference."""


def told_apart(first: Sequence[float], second: Sequence[float]) -> float:
    """By how many standard deviations the one is larger more often than chance has it.

    Mann and Whitney's statistic: it goes by the order alone, so that outliers, of which a busy
    machine has many, weigh no more than others.
    """
    ranked = sorted((value, which) for which, each in enumerate((first, second)) for value in each)
    sum_ = sum(rank for rank, (_, which) in enumerate(ranked, start=1) if which == 0)
    n, m = len(first), len(second)
    u = sum_ - n * (n + 1) / 2
    return abs(u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)


async def taken(
    first: Callable[[], Awaitable[object]], second: Callable[[], Awaitable[object]]
) -> tuple[list[float], list[float]]:
    """Seconds that each takes, in turns whose order is a matter of luck."""
    times: tuple[list[float], list[float]] = ([], [])
    calls = (first, second)
    order = [0, 1] * SAMPLES
    random.Random(5).shuffle(order)
    for number, which in enumerate(order):
        began = time.perf_counter()
        await calls[which]()
        if number >= SAMPLES // 10:  # At first everything is slow.
            times[which].append(time.perf_counter() - began)
    return times


async def test_what_is_another_tenants_takes_as_long_as_what_is_not_there(stage: Stage) -> None:
    workspaces = WorkspaceServiceStub(stage.channels[0])
    executions = ExecutionServiceStub(stage.channels[0])
    metadata = bearer(stage.secrets["other admin"])
    owner = bearer(stage.secrets["acme reader"])  # So that the gateway has it at hand.
    await workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=THERE), metadata=owner)

    def reads(name: str) -> Callable[[], Awaitable[object]]:
        request = pb.GetWorkspaceRequest(name=name)
        return lambda: failure(workspaces.GetWorkspace(request, metadata=metadata))

    def runs(name: str) -> Callable[[], Awaitable[object]]:
        request = pb.ExecuteRequest(name=name)
        request.spec.argv.append("true")
        return lambda: failure(executions.Execute(request, metadata=metadata))

    for make in (reads, runs):
        assert told_apart(*await taken(make(THERE), make(MISSING))) < SIGMAS


async def test_a_share_learns_nothing_of_its_neighbours_by_the_time_either(stage: Stage) -> None:
    workspaces = WorkspaceServiceStub(stage.channels[0])
    metadata = bearer(stage.secrets["share reader"])

    def reads(name: str) -> Callable[[], Awaitable[object]]:
        request = pb.GetWorkspaceRequest(name=name)
        return lambda: failure(workspaces.GetWorkspace(request, metadata=metadata))

    assert told_apart(*await taken(reads(THERE), reads(MISSING))) < SIGMAS


async def test_a_difference_would_be_seen(stage: Stage) -> None:
    """What is answered here, against what the registry is asked for."""
    workspaces = WorkspaceServiceStub(stage.channels[0])
    asked = pb.GetWorkspaceRequest(name=MISSING)

    def reads(who: str) -> Callable[[], Awaitable[object]]:
        metadata = bearer(stage.secrets[who])
        return lambda: failure(workspaces.GetWorkspace(asked, metadata=metadata))

    assert told_apart(*await taken(reads("share reader"), reads("other reader"))) > 3 * SIGMAS
