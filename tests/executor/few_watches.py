"""Watches where a user may have few of them; prints what callers were told, as JSON.

Run with an empty directory, as root, by test_watches: in a user namespace of its own, so that
nobody else has fewer.
"""

import asyncio
import ctypes
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from tests.executor.answers import failing
from tests.executor.node import Node, running_node
from tests.executor.test_watches import CREATED, watching

MOST, QUEUES = 20, 4
_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
HOLDS = f"""
import ctypes, time
take = ctypes.CDLL(None).inotify_init1
for _ in range({QUEUES}): take(0)
print("held", flush=True)
while True:
    take(0)
    time.sleep(0.001)
"""
"""Also what the watches before have yet to give back."""


def enter() -> None:
    """A user namespace in which users are who they are, and may watch little."""
    ready, told = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        os.read(ready, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{parent}/{name}").write_text("0 0 65536")
        os._exit(0)
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_USER | _NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "no user namespace")
    os.write(told, b"x")
    os.wait()
    Path("/proc/sys/user/max_inotify_watches").write_text(str(MOST))
    Path("/proc/sys/user/max_inotify_instances").write_text(str(QUEUES))


async def main(node: Node) -> None:
    async with node.executor() as caller, node.sandbox() as box, node.sandbox() as beside:
        await caller.execute(box, f"mkdir few; for i in $(seq {MOST}); do mkdir -p many/$i; done")
        async with failing() as answer, watching(caller, box, "many"):
            pass
        seen = {"directories": asdict(answer)}
        async with watching(caller, box, "few") as watch:
            await caller.execute(box, "touch few/x")
            await watch.until(CREATED, "x")
            async with failing() as answer:
                await caller.execute(box, f"mkdir -p $(seq -f few/%.0f {MOST})")
                while True:
                    await watch.until(CREATED, "never")
            seen["grown"] = asdict(answer)
        await caller.start(beside, "holds", f"python3 -c '{HOLDS}'")
        await caller.read(beside, "holds").read()
        while "queues" not in str(seen.get("queues")):
            async with failing() as answer, watching(caller, box, "few"):
                pass
            seen["queues"] = asdict(answer)
        await caller.signal(beside, "holds", 9)
        await caller.wait(beside, "holds")
        async with watching(caller, box, "many/1") as watch:
            await caller.execute(box, "touch many/1/x")
            seen["after"] = (await watch.until(CREATED, "x")).path
        sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    enter()
    folder = Path(sys.argv[1])
    state, runtime = folder / "s", folder / "r"
    for each in (state, runtime):
        each.mkdir(mode=0o700)
    with running_node(state, runtime) as running:
        asyncio.run(main(running))
