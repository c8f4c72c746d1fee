"""Whether the launcher is well, by its own protocol: the health check of its container."""

import asyncio
import os
import sys
from pathlib import Path

from agent.launcher_client import LauncherClient, LauncherError, PeerGone, PeerTooOld


async def trouble(path: Path) -> str:
    """What is wrong with it; empty when nothing is."""
    try:
        async with LauncherClient.connect(path) as client:
            return (await client.facts()).problem
    except (LauncherError, PeerGone, PeerTooOld, OSError) as error:
        return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(asyncio.run(trouble(Path(os.environ["COVE_RUNTIME"], "launcher"))) or None)
