"""The steps of an operation, and gateways that come to one of them."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Final, NamedTuple

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from tests.gateway.stage import LIMIT, Gateway, Stage

LEASE: Final = timedelta(minutes=1)
"""So long that it is not lost while the requests are on their way to their steps."""


class Step(NamedTuple):
    """Where a call is held while something happens to its gateway."""

    id: str
    tool: str
    rpc: str
    done: bool = False


def steps(table: list[tuple[str, str]], prefix: str = "step") -> list[Step]:
    """Each step on its way to the tool, and on its way back."""
    return [
        Step(f"{prefix}-{number}-{'after' if done else 'before'}", tool, rpc, done)
        for number, (tool, rpc) in enumerate(table)
        for done in (False, True)
    ]


async def begun(
    stage: Stage, victim: Gateway, method: str, requests: Mapping[Step, object]
) -> "asyncio.Future[list[object]]":
    """Send each request, and hold it when it has come to its step; what they answer in the end."""
    holds = [
        getattr(stage, step.tool).hold(step.rpc, done=step.done, correlation_id=step.id)
        for step in requests
    ]
    calls = [
        getattr(victim.workspaces, method)(request, metadata=(("x-request-id", step.id),))
        for step, request in requests.items()
    ]
    ended = asyncio.gather(*calls, return_exceptions=True)
    reached = [asyncio.ensure_future(held.reached.wait()) for held in holds]
    _, missing = await asyncio.wait(reached, timeout=LIMIT)
    assert not missing, [
        step.id for step, held in zip(requests, holds, strict=True) if not held.reached.is_set()
    ]
    return ended


async def killed_at(stage: Stage, method: str, requests: Mapping[Step, object]) -> None:
    """Kill a gateway when each of these requests has come to its step; its leases are over then."""
    async with stage.gateway_process(LEASE.total_seconds()) as victim:
        ended = await begun(stage, victim, method, requests)
        await victim.kill()
        await ended
    stage.reset()
    stage.times.pass_(LEASE)


async def run(
    gateway: Gateway, script: str = "cat hello.txt", name: str = "workspaces/demo"
) -> str:
    """The output of a command."""
    spec = executor_pb2.ExecutionSpec(script=script)
    answer = await gateway.executions.Execute(pb.ExecuteRequest(name=name, spec=spec))
    return answer.stdout.text
