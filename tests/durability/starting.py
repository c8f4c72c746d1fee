"""A client that starts one command: `python -m tests.durability.starting ADDRESS ID NAME`.

The token is in the environment.
"""

import asyncio
import os
import sys

from cove.client import Client


def script(name: str) -> str:
    """Of the command, which counts its runs."""
    return f"echo x >> count-{name}"


async def main(address: str, workspace: str, name: str) -> None:
    async with Client(address, os.environ["COVE_TOKEN"], patience=60) as cove:
        found = await cove.workspaces.get(workspace)
        await found.start(script=script(name), id=name)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
