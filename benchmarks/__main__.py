"""`python -m benchmarks [name ...]`: every benchmark, or those named.

`docker` is all those that compare with a container engine; `ratios` those too and the streams:
all for which there is an aim, each of which is then said to hold or to be missed.
"""

import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import (
    create,
    density,
    driver,
    ending,
    envoy,
    execute,
    memory,
    nodes,
    registry,
    stack,
    stores,
    stream,
    tracing,
    worktree,
)
from benchmarks.engine import engine
from benchmarks.suite import suite

ALL = {
    "execute": execute.run,
    "create": create.run,
    "ending": ending.run,
    "density": density.run,
    "driver": driver.run,
    "stream": stream.run,
    "memory": memory.run,
    "worktree": worktree.run,
    "registry": registry.run,
    "stack": stack.run,
    "nodes": nodes.run,
    "stores": stores.run,
    "envoy": envoy.run,
    "tracing": tracing.run,
}
DOCKER = ("execute", "create", "ending", "density", "driver")
GROUPS = {"docker": DOCKER, "ratios": (*DOCKER, "stream")}


async def main(names: list[str]) -> int:
    unknown = set(names) - {*ALL, *GROUPS}
    if unknown:
        known = ", ".join((*ALL, *GROUPS))
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {known}")
        return 2
    wanted = [each for name in names or ALL for each in GROUPS.get(name, (name,))]
    with tempfile.TemporaryDirectory(prefix="cove-bench-") as folder, ExitStack() as stack:
        beside = None
        if {*wanted} & {*DOCKER}:
            beside = stack.enter_context(engine(Path(folder) / "engine"))
        async with suite(beside) as running:
            for name in dict.fromkeys(wanted):
                await ALL[name](running, Path(folder) / name)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
