"""`python -m benchmarks [name ...]`: every benchmark, or those named."""

import asyncio
import sys
import tempfile
from pathlib import Path

from benchmarks import create, execute, memory, registry, stores, stream, worktree
from benchmarks.suite import suite

ALL = {
    "execute": execute.run,
    "create": create.run,
    "stream": stream.run,
    "memory": memory.run,
    "worktree": worktree.run,
    "registry": registry.run,
    "stores": stores.run,
}


async def main(names: list[str]) -> int:
    unknown = set(names) - set(ALL)
    if unknown:
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
        return 2
    with tempfile.TemporaryDirectory(prefix="cove-bench-") as folder:
        async with suite() as running:
            for name in names or ALL:
                await ALL[name](running, Path(folder) / name)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
