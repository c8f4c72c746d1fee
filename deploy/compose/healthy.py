"""Whether a process of the suite is well: `healthy.py NAME`, the health check of a container."""

import asyncio
import os
import sys
from pathlib import Path

from agent.launcher_client import LauncherClient, LauncherError, PeerGone, PeerTooOld
from cove import health


async def trouble(name: str, runtime: Path) -> str:
    """What is wrong with it; empty when nothing is."""
    path = runtime / name
    if name != "launcher":
        status = await health.ask(f"unix:{path}")
        return "" if status == health.SERVING else status
    try:
        async with LauncherClient.connect(path) as client:
            return (await client.facts()).problem
    except (LauncherError, PeerGone, PeerTooOld, OSError) as error:
        return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(asyncio.run(trouble(sys.argv[1], Path(os.environ["COVE_RUNTIME"]))) or None)
