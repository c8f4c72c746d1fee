"""Runs a command whose output does not fit on the disk; prints what a reader saw, as JSON.

Run with an empty directory, as root in a mount namespace of its own, by test_full_disk.
"""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import grpc

from cove.executor.v1 import executor_pb2 as pb
from tests.agent.node import until
from tests.executor.node import Node, running_node

_ROOM = 64
"""Blocks of 4 KiB, of which some hundreds are in the log."""


async def main(node: Node) -> None:
    async with node.executor() as caller, node.sandbox() as box:
        await caller.start(box, "one", "head -c 20000000 /dev/zero; echo end; exit 3")
        ended = await caller.wait(box, "one")
        chunks, gaps, last = 0, [], ""
        async for event in caller.read(box, "one"):
            last = event.WhichOneof("event")
            chunks += len(event.chunk.data)
            if last == "gap":
                gaps.append((getattr(event.gap, "from"), event.gap.to, event.gap.reason))
        seen = {"code": ended.exit.code, "chunks": chunks, "gaps": gaps, "last": last}
        fill(node.state / "executor" / "filler")
        try:
            await caller.start(box, "two", "true")
        except grpc.aio.AioRpcError as error:
            seen["refused"] = error.code().name
        await caller.executions.DeleteExecution(pb.DeleteExecutionRequest(name=box.name("one")))
        # Its agent, which wrote the result, may be about to close the log.
        await until(lambda: os.statvfs(node.state / "executor").f_bavail > _ROOM)
        seen["after"] = (await caller.execute(box, "echo x")).stdout.text
        sys.stdout.write(json.dumps(seen))


def fill(path: Path) -> None:
    """Until nothing fits any more, whoever else writes meanwhile."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    state, runtime = folder / "s", folder / "r"
    (state / "executor").mkdir(mode=0o700, parents=True)
    runtime.mkdir(mode=0o700)
    subprocess.check_call(["mount", "-t", "tmpfs", "-o", "size=8m", "x", str(state / "executor")])
    with running_node(state, runtime) as running:
        asyncio.run(main(running))
