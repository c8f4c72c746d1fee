"""Unpacks archives where they do not fit; prints what a caller was told, as JSON.

Run with an empty directory, as root in a mount namespace of its own, by test_full_disk.
"""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.executor.answers import failing
from tests.executor.node import Caller, Node, Sandbox, running_node
from tests.executor.test_archives import archive, unpack
from tests.executor.test_files import write

SIZE, FILES = 3 << 20, 100
LARGE = archive(("d/first", b"x"), *((f"d/{n}", os.urandom(1 << 20)) for n in range(8)))
MANY = archive(("d/first", b"x"), *((f"d/{n}", b"") for n in range(2 * FILES)))


async def refused(caller: Caller, box: Sandbox, path: str, data: bytes) -> dict[str, Any]:
    """What is told of an archive that does not fit, and what is there then."""
    async with failing() as answer:
        await unpack(caller, box, path, data)
    found = sorted(str(each.relative_to(box.tree)) for each in box.tree.rglob("*"))
    return {**asdict(answer), "left": found, "kept": (box.tree / "d/first").read_text()}


async def main(node: Node) -> None:
    async with node.executor() as caller, node.sandbox() as box:
        await caller.execute(box, "mkdir d; echo kept > d/first")
        seen: dict[str, Any] = {
            "new": await refused(caller, box, "into", LARGE),
            "merged": await refused(caller, box, "", LARGE),
            "files": await refused(caller, box, "into", MANY),
        }
        async with failing() as answer:
            await write(caller, box, "large", bytes(SIZE + (1 << 19)))
        fits = archive(("d/second", os.urandom(SIZE // 2)))
        seen["write"] = {**asdict(answer), "left": sorted(each.name for each in box.tree.iterdir())}
        seen["fits"] = (await unpack(caller, box, "", fits)).entries
        sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    state, runtime = folder / "s", folder / "r"
    (state / "git").mkdir(mode=0o755, parents=True)
    runtime.mkdir(mode=0o700)
    options = f"size={SIZE},nr_inodes={FILES}"
    subprocess.check_call(["mount", "-t", "tmpfs", "-o", options, "x", str(state / "git")])
    with running_node(state, runtime) as running:
        asyncio.run(main(running))
