"""`true` in a container of the driver docker, whose agent runs inside, and by the Engine's exec."""

from pathlib import Path

import grpc

from benchmarks.measure import Action, interleaved, report
from benchmarks.suite import SERVICE_METADATA, Suite, make_repository
from cove.executor.v1 import executor_pb2
from cove.executor.v1.executor_pb2_grpc import ExecutorServiceStub


async def run(suite: Suite, folder: Path) -> None:
    if suite.engine is None:
        return
    repository, engine = make_repository(folder / "repo", 45), suite.engine
    spec = executor_pb2.ExecutionSpec(argv=["true"])
    handles = {}
    for driver in ("docker", "local"):
        await suite.create(repository, f"on-{driver}", driver=driver)
        await suite.execute(f"on-{driver}", "true")  # Activates it.
        handles[driver] = (await suite.environment(f"on-{driver}")).handle
    container = await engine.create()
    await engine.start(container)
    async with grpc.aio.insecure_channel(f"unix:{suite.runtime}/executor") as channel:
        executor = ExecutorServiceStub(channel)

        async def through(handle: bytes) -> None:
            request = executor_pb2.ExecuteRequest(handle=handle, spec=spec)
            await executor.Execute(request, metadata=SERVICE_METADATA)

        actions: dict[str, Action] = {
            "on docker": lambda: through(handles["docker"]),
            "on local": lambda: through(handles["local"]),
            "docker exec": lambda: engine.execute(container, "true"),
        }
        medians = await interleaved(actions, rounds=100)
        report("`true` by driver", medians, ["docker exec", "on local"])
    await engine.remove(container)
    for driver in handles:
        await suite.delete(f"on-{driver}")
