"""Concurrent callers and a registry that is killed: what they are told is what one could be told
who makes their calls one after the other."""

import asyncio
import os
import random
import secrets
import signal
import time
import uuid
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from cove.registry.v1 import registry_pb2 as pb
from servicekit.status import reason_name, told
from tests.registry.caller import Caller
from tests.registry.history import NEVER, Call, judge
from tests.registry.model import Ask, Env, Refused, Removed, State, seen, step
from tests.registry.postgres import Postgres, running
from tests.registry.test_crash import EndedAtOnce, connect, process

SEED = os.environ.get("COVE_HISTORY_SEED") or secrets.token_hex(4)
LIVES = int(os.environ.get("COVE_HISTORY_LIVES", "10"))
CALLERS: Final = 10
NAMES: Final = ("one", "two", "three")
LEASES: Final = (0.05, 0.5, 3600)
OPERATIONS: Final = (pb.Environment.OPERATION_DELETING, pb.Environment.OPERATION_SUSPENDING)
UNSURE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
KINDS: Final = {
    "get": 4,
    "register": 3,
    "update": 4,
    "claim": 3,
    "renew": 1,
    "release": 1.5,
    "status": 3,
    "deregister": 1,
}


class Registry:
    """Some that are killed and started again, on one database. A caller comes to any of them."""

    def __init__(self, folder: Path, database: str, replicas: int) -> None:
        self._folder = folder
        self._database = database
        self._replicas = replicas
        self._channels: dict[int, grpc.aio.Channel] = {}
        self._there = asyncio.Event()

    async def run(self, dice: random.Random, lives: int, life: float) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._replicas):
                mine = random.Random(dice.random())
                group.create_task(self._run(number, mine, lives, life))

    async def _run(self, number: int, dice: random.Random, lives: int, life: float) -> None:
        """As `cove up` does it: one that cannot start is started again."""
        folder = self._folder / f"n{number}"
        while lives:
            with suppress(EndedAtOnce):
                await self._live(number, folder, dice.uniform(0.2, 1) * life)
                lives -= 1

    async def _live(self, number: int, folder: Path, seconds: float) -> None:
        async with (
            process(folder, self._database) as (server, address),
            connect(address) as channel,
        ):
            self._channels[number] = channel
            self._there.set()
            await asyncio.sleep(seconds)
            del self._channels[number]
            if not self._channels:
                self._there.clear()
            server.send_signal(signal.SIGKILL)
            await server.wait()

    async def channel(self, dice: random.Random) -> grpc.aio.Channel:
        await self._there.wait()
        return dice.choice(list(self._channels.values()))


class Writer:
    """A caller. It uses what it has seen: etags and tokens, also of others, also of the past."""

    def __init__(self, number: int, registry: Registry, seed: str) -> None:
        self._who = f"w{number}"
        self._registry = registry
        self._dice = random.Random(f"{seed}/{number}")
        self._seen: dict[str, list[Env]] = defaultdict(list)
        self._wrote = 0
        self.calls: dict[str, list[Call]] = defaultdict(list)

    async def write(self) -> None:
        """Until cancelled."""
        while True:
            name = self._dice.choice(NAMES)
            (kind,) = self._dice.choices(list(KINDS), weights=list(KINDS.values()))
            ask = self._ask(kind, name)
            if ask:
                await self._call(name, ask, self._message(name, ask))

    def _ask(self, kind: str, name: str) -> Ask | None:
        known = self._dice.choice(self._seen[name][-3:]) if self._seen[name] else None
        token = known.token if known and self._dice.random() < 0.4 else 0
        etag = known.etag if known and self._dice.random() < 0.4 else ""
        self._wrote += 1
        value = f"{self._who}-{self._wrote}"
        match kind:
            case "register":
                return Ask(kind, value, holder=self._who)
            case "update":
                return Ask(kind, value, etag=etag, token=token)
            case "claim":
                operation = self._dice.choice(OPERATIONS)
                return Ask(kind, operation=operation, holder=self._who, etag=etag)
            case "renew" | "release":
                return Ask(kind, token=known.token) if known else None
            case "status":
                state = self._dice.choice(State.values()[1:])
                release = self._dice.random() < 0.3
                return Ask(kind, state=state, etag=etag, token=token, release=release)
            case "deregister":
                return Ask(kind, etag=etag, token=token)
        return Ask(kind)

    def _message(self, name: str, ask: Ask) -> Any:
        full, request_id = f"environments/{name}", str(uuid.UUID(int=self._dice.getrandbits(128)))
        lease = Duration()
        lease.FromNanoseconds(int(self._dice.choice(LEASES) * 1e9))
        match ask.kind:
            case "register":
                environment = pb.Environment(labels={"v": ask.value})
                return pb.RegisterEnvironmentRequest(
                    environment_id=name,
                    environment=environment,
                    holder=ask.holder,
                    lease=lease,
                    request_id=request_id,
                )
            case "update":
                return pb.UpdateEnvironmentRequest(
                    environment=pb.Environment(name=full, labels={"v": ask.value}, etag=ask.etag),
                    update_mask=FieldMask(paths=["labels"]),
                    fencing_token=ask.token,
                    request_id=request_id,
                )
            case "claim":
                return pb.ClaimOperationRequest(
                    name=full,
                    operation=pb.Environment.Operation.ValueType(ask.operation),
                    holder=ask.holder,
                    lease=lease,
                    etag=ask.etag,
                    request_id=request_id,
                )
            case "renew":
                return pb.RenewOperationRequest(name=full, fencing_token=ask.token, lease=lease)
            case "release":
                return pb.ReleaseOperationRequest(name=full, fencing_token=ask.token)
            case "status":
                return pb.UpdateEnvironmentStatusRequest(
                    name=full,
                    state=pb.Environment.State.ValueType(ask.state),
                    etag=ask.etag,
                    fencing_token=ask.token,
                    release_operation=ask.release,
                    request_id=request_id,
                )
            case "deregister":
                return pb.DeregisterEnvironmentRequest(
                    name=full, etag=ask.etag, fencing_token=ask.token, request_id=request_id
                )
        return pb.GetEnvironmentRequest(name=full)

    async def _call(self, name: str, ask: Ask, message: Any) -> None:
        """Make the call, mostly until it is answered, and note it."""
        began, ended, answer = time.time_ns(), NEVER, None
        repeats = ask.kind not in ("renew", "release") and self._dice.random() < 0.8
        try:
            while answer is None:
                caller = Caller(await self._registry.channel(self._dice))
                answer = await _answer(caller, ask, message)
                if answer is None and not repeats:
                    return
            ended = time.time_ns()
        finally:
            self.calls[name].append(Call(ask, answer, began, ended))
        if isinstance(answer, Env):
            self._seen[name].append(answer)


async def _answer(caller: Caller, ask: Ask, message: Any) -> Env | Refused | str | None:
    """None: nobody knows."""
    try:
        answer = await caller(message)
    except grpc.aio.AioRpcError as error:
        if error.code() in UNSURE:
            return None
        if (status := told(error)) is None:
            raise
        return Refused(reason_name(status))
    return Removed if ask.kind == "deregister" else seen(answer.environment)


def judged(name: str, calls: Sequence[Call]) -> None:
    answered = [call for call in calls if call.answered]
    verdict = judge(step, None, calls)
    told_ = f"{name}: {len(answered)} calls, {len(calls) - len(answered)} without an answer"
    print(f"seed {SEED}, {told_}")  # noqa: T201
    assert verdict.linearizable, "\n".join(
        [f"{told_}; none of these can be next:", *map(str, verdict.stuck)]
    )


async def history(
    registry: Registry, lives: int, life: float, *others: Coroutine[Any, Any, None]
) -> None:
    writers = [Writer(number, registry, SEED) for number in range(CALLERS)]
    writing = [asyncio.create_task(each.write()) for each in writers]
    beside = [asyncio.create_task(each) for each in others]
    try:
        await registry.run(random.Random(SEED), lives, life)
    finally:
        for each in (*writing, *beside):
            each.cancel()
        ends = await asyncio.gather(*writing, *beside, return_exceptions=True)
    assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []
    for name in NAMES:
        judged(name, [call for each in writers for call in each.calls[name]])


async def restarts(server: Postgres, dice: random.Random) -> None:
    """Crashes of PostgreSQL, until cancelled."""
    while True:
        await asyncio.sleep(dice.uniform(1, 4))
        await asyncio.shield(asyncio.to_thread(server.stop, signal.SIGKILL))
        await asyncio.shield(asyncio.to_thread(server.start))


@pytest.mark.timeout(120)
async def test_a_history_with_kills_is_linearizable(tmp_path: Path, database: str) -> None:
    replicas = 2 if database.startswith("postgresql:") else 1
    await history(Registry(tmp_path, database, replicas), 3, 0.7)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_a_history_with_many_kills_is_linearizable(tmp_path: Path, database: str) -> None:
    replicas = 2 if database.startswith("postgresql:") else 1
    await history(Registry(tmp_path, database, replicas), LIVES, 1)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_a_history_with_crashes_of_postgresql_is_linearizable(tmp_path: Path) -> None:
    with running(fsync=True) as server:
        registry = Registry(tmp_path, server.fresh(), 2)
        await history(registry, LIVES, 3, restarts(server, random.Random(SEED)))
