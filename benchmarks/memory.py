"""Memory of each service, idle and while 1 GB of output is followed; growth at most 16 MB."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.suite import Suite, make_repository
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb

SIZE = 1_000_000_000
LIMIT = 16_000_000


async def run(suite: Suite, folder: Path) -> None:
    await suite.create(make_repository(folder / "repo", 45), "memory")
    await follow(suite, 1_000_000)  # Warm: buffers, channels, the sandbox.
    pids = suite.processes()
    idle = {name: resident(pid) for name, pid in pids.items()}
    peak = dict(idle)

    def look() -> None:
        for name, pid in pids.items():
            peak[name] = max(peak[name], resident(pid))

    await follow(suite, SIZE, look)
    print(f"\nmemory, idle and at most while {SIZE // 1_000_000} MB of output are followed")
    for name in sorted(pids):
        growth = peak[name] - idle[name]
        verdict = "" if growth <= LIMIT else "  OVER THE LIMIT"
        print(
            f"  {name:12} {idle[name] / 1e6:6.1f} MB {peak[name] / idle[name]:6.2f} x idle"
            f"  (+{growth / 1e6:.1f} MB){verdict}"
        )
    await suite.delete("memory")


async def follow(suite: Suite, size: int, look: Callable[[], None] = lambda: None) -> None:
    spec = executor_pb2.ExecutionSpec(argv=["head", "-c", str(size), "/dev/zero"])
    request = pb.StreamExecutionRequest(name="workspaces/memory", spec=spec)
    got = seen = 0
    async for event in suite.executions.StreamExecution(request, metadata=suite.metadata):
        got += len(event.chunk.data)
        if got - seen > 10_000_000:
            seen = got
            look()
    assert got == size, got


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has no memory")
