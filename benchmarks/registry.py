"""The registry: its writes against etcd's, and what 100,000 environments cost against 100."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from benchmarks.etcd import Etcd, etcd, events
from benchmarks.suite import SERVICE_METADATA, Suite
from cove.registry.v1 import registry_pb2 as pb
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from servicekit.filters.filters import Filter
from services.registry.fields import FIELDS
from services.registry.lists import Listing, listing_order, page
from services.registry.rules import Rules
from services.registry.sqlite import SqliteStore
from services.registry.store import Key, Place, Write

CONCURRENCY: Final = 32
KEYS: Final = 256
FEW, MANY = 100, 100_000
_TENANT: Final = dict(SERVICE_METADATA)["cove-tenant"]


async def run(_: Suite, folder: Path) -> None:
    folder.mkdir(parents=True)
    async with process(folder / "writes") as registry, etcd(folder / "etcd") as reference:
        if reference is None:
            print("\nregistry against etcd: no etcd here; apt-get install etcd-server")
        else:
            await writes(registry, reference)
            await watched(registry, reference)
    await sizes(folder)


async def writes(registry: RegistryServiceStub, reference: Etcd) -> None:
    """Over gRPC, 32 at a time; batched: 100 in a call, 4 calls at a time."""
    await registered(registry, KEYS)
    value = pb.Environment(node="n" * 200, annotations={"a": "b" * 50}).SerializeToString()
    size = 100

    async def one(number: int) -> None:
        await registry.UpdateEnvironment(update(number % KEYS, number), metadata=SERVICE_METADATA)

    async def put(number: int) -> None:
        await reference.put(f"environments/e{number % KEYS:06}", value + b"%d" % number)

    async def batch(number: int) -> None:
        begin = number * size
        request = pb.BatchUpdateEnvironmentsRequest(
            writes=[
                pb.BatchUpdateEnvironmentsRequest.Write(update=update(each % KEYS, each))
                for each in range(begin, begin + size)
            ]
        )
        answer = await registry.BatchUpdateEnvironments(request, metadata=SERVICE_METADATA)
        assert not any(each.HasField("error") for each in answer.results)

    rates = await against({"UpdateEnvironment": one, "etcd's put": put}, count=2000, rounds=5)
    batched = await against({"batched": batch}, count=40, rounds=5, concurrency=4)
    rates = {**rates, "BatchUpdateEnvironments": batched["batched"] * size}
    tell("writes over gRPC, 32 at a time", rates, "etcd's put")


async def watched(registry: RegistryServiceStub, reference: Etcd) -> None:
    """From the call of a write to its event, one after the other."""
    ours: list[float] = []
    theirs: list[float] = []
    call: Any = registry.WatchEnvironments(pb.WatchEnvironmentsRequest(), metadata=SERVICE_METADATA)
    while not (await call.read()).HasField("snapshot_end"):
        pass
    async with reference.watch("watched/") as watch:
        for number in range(320):
            began = time.perf_counter()
            writing = asyncio.ensure_future(
                registry.UpdateEnvironment(update(0, -number - 1), metadata=SERVICE_METADATA)
            )
            while not (await call.read()).HasField("put"):
                pass
            ours.append(time.perf_counter() - began)
            await writing
            began = time.perf_counter()
            putting = asyncio.ensure_future(reference.put("watched/one", b"%d" % number))
            while not events(await watch.read()):
                pass
            theirs.append(time.perf_counter() - began)
            await putting
    call.cancel()
    medians = {"write to event": ours[20:], "etcd's": theirs[20:]}
    seconds = {name: statistics.median(each) for name, each in medians.items()}
    compare("from a write to its watch event", seconds, "etcd's")


async def sizes(folder: Path) -> None:
    """Pages and starts with 100,000 environments, against 100."""
    for count in (FEW, MANY):
        store_folder = folder / str(count) / "s" / "registry"
        store_folder.mkdir(parents=True, mode=0o700)
        async with SqliteStore.open(store_folder / "registry.db") as store:
            await fill(store, count)
    starts: dict[str, list[float]] = {str(FEW): [], str(MANY): []}
    for _ in range(5):
        for name, taken in starts.items():
            began = time.perf_counter()
            async with process(folder / name):
                taken.append(time.perf_counter() - began)
    compare("start of the process, environments", medians_of(starts), str(FEW))
    async with process(folder / str(FEW)) as few, process(folder / str(MANY)) as many:
        await pages({str(FEW): few, str(MANY): many})
    async with SqliteStore.open(folder / str(MANY) / "s/registry/registry.db") as store:
        await held(store)


async def pages(registries: Mapping[str, RegistryServiceStub]) -> None:
    for title, request in {
        "a page of 100": pb.ListEnvironmentsRequest(page_size=100),
        "a page of 50, the newest": pb.ListEnvironmentsRequest(
            page_size=50, order_by="create_time desc"
        ),
        "a page of 50 of a filter that half match": pb.ListEnvironmentsRequest(
            page_size=50, filter="labels.half = yes"
        ),
        "the one that is FAILED": pb.ListEnvironmentsRequest(filter="state = FAILED"),
        "a page of a filter that none matches": pb.ListEnvironmentsRequest(
            filter="labels.team = none"
        ),
    }.items():
        samples: dict[str, list[float]] = {name: [] for name in registries}
        for _ in range(40):
            for name, registry in registries.items():
                began = time.perf_counter()
                await registry.ListEnvironments(request, metadata=SERVICE_METADATA)
                samples[name].append(time.perf_counter() - began)
        compare(f"{title}, environments", medians_of(samples), str(FEW))


async def held(store: SqliteStore) -> None:
    """The longest that the loop was held, in time of the processor, while a rare filter was
    listed to its end: what others on this machine do is no part of it."""
    longest = 0.0

    async def ticking() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    tick = asyncio.create_task(ticking())
    place: Place | None = None
    rare = Listing(
        tenant=_TENANT,
        filter=Filter("labels.team = none", FIELDS),
        states=frozenset(),
        order=listing_order("", all_tenants=False),
    )
    began, count = time.perf_counter(), 0
    while count == 0 or place:
        _, place = await page(store, rare, place, 100)
        count += 1
    tick.cancel()
    print(
        f"\na filter that none of {MANY} matches: {count} pages in "
        f"{time.perf_counter() - began:.2f} s, the loop was held {longest * 1000:.1f} ms at most"
    )


async def against(
    actions: Mapping[str, Callable[[int], Awaitable[Any]]],
    *,
    count: int,
    rounds: int,
    concurrency: int = CONCURRENCY,
) -> dict[str, float]:
    """How many a second, the median of some rounds in turn."""
    rates: dict[str, list[float]] = {name: [] for name in actions}
    number = 0

    async def worker(action: Callable[[int], Awaitable[Any]]) -> None:
        nonlocal number
        while number < end:
            number += 1
            await action(number)

    for turn in range(rounds + 1):
        for name, action in actions.items():
            end = number + count
            began = time.perf_counter()
            await asyncio.gather(*(worker(action) for _ in range(concurrency)))
            if turn:
                rates[name].append(count / (time.perf_counter() - began))
    return medians_of(rates)


def medians_of(samples: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(each) for name, each in samples.items()}


def tell(title: str, rates: Mapping[str, float], reference: str) -> None:
    """Each rate as a multiple of the reference's: more is better."""
    print(f"\n{title}")
    for name, rate in rates.items():
        if name != reference:
            ratio = rate / rates[reference]
            numbers = f"({rate:.0f}/s against {rates[reference]:.0f}/s)"
            print(f"  {name:38} {ratio:8.2f} x {reference:20} {numbers}")


def compare(title: str, seconds: Mapping[str, float], reference: str) -> None:
    """Each time as a multiple of the reference's: less is better."""
    print(f"\n{title}")
    for name, each in seconds.items():
        if name != reference:
            numbers = f"({each * 1000:.2f} ms against {seconds[reference] * 1000:.2f} ms)"
            print(f"  {name:38} {each / seconds[reference]:8.2f} x {reference:20} {numbers}")


def update(number: int, value: int) -> pb.UpdateEnvironmentRequest:
    return pb.UpdateEnvironmentRequest(
        environment=pb.Environment(name=f"environments/e{number:06}", node=str(value)),
        update_mask=FieldMask(paths=["node"]),
    )


async def registered(registry: RegistryServiceStub, count: int) -> None:
    for number in range(count):
        request = registration(number)
        await registry.RegisterEnvironment(request, metadata=SERVICE_METADATA)


def registration(number: int) -> pb.RegisterEnvironmentRequest:
    request = pb.RegisterEnvironmentRequest(
        environment_id=f"e{number:06}",
        environment=pb.Environment(
            labels={"team": "web", "half": "yes" if number % 2 else "no"},
            annotations={"note": "n" * 100},
            spec=pb.EnvironmentSpec(repository="https://example.org/app.git", revision="main"),
        ),
        holder="benchmark",
    )
    request.lease.seconds = 30
    return request


async def fill(store: SqliteStore, count: int) -> None:
    """Register so many, one of them FAILED."""
    rules = Rules(time.time_ns)
    failed = pb.UpdateEnvironmentStatusRequest(state=pb.Environment.STATE_FAILED)
    for begin in range(0, count, 1000):
        chunk = []
        for number in range(begin, min(begin + 1000, count)):
            request = registration(number)
            key = Key(_TENANT, f"environments/{request.environment_id}")
            chunk.append(Write(key, _registering(rules, request, key)))
        await store.write_all(chunk, lambda _: b"")
    key = Key(_TENANT, f"environments/e{count // 2:06}")
    await store.write(key, lambda current, revision: rules.update_status(failed, current, revision))


def _registering(rules: Rules, request: pb.RegisterEnvironmentRequest, key: Key) -> Any:
    return lambda current, revision: rules.register(request, key, "ada", current, revision)


@asynccontextmanager
async def process(folder: Path) -> AsyncIterator[RegistryServiceStub]:
    """The registry as a process of its own, serving."""
    runtime = folder / "r"
    env = {
        **os.environ,
        "COVE_STATE": str(folder / "s"),
        "COVE_RUNTIME": str(runtime),
        "COVE_REGISTRY__LOG_LEVEL": "warning",
    }
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.registry", env=env, stdout=subprocess.PIPE
    )
    assert server.stdout
    try:
        ready = json.loads(await server.stdout.readline())
        async with grpc.aio.insecure_channel(ready["addresses"][0]) as channel:
            yield RegistryServiceStub(channel)
    finally:
        server.terminate()
        await server.wait()
