"""`cove forward`."""

import argparse
import asyncio
import signal
from contextlib import AsyncExitStack

from cove.cli.console import Console
from cove.cli.errors import UsageError
from cove.client import Client


def _pair(text: str) -> tuple[int, int]:
    """`[local:]port`. Raises `UsageError`."""
    local, colon, port = text.rpartition(":")
    parts = (local, port) if colon else (port, port)
    if not all(part.isascii() and part.isdecimal() and len(part) < 6 for part in parts):
        raise UsageError(f"{text}: not of the form [LOCAL:]PORT")
    found = int(parts[0]), int(parts[1])
    if found[0] > 65535 or not 0 < found[1] <= 65535:
        raise UsageError(f"{text}: no such port")
    return found


async def forward(cove: Client, options: argparse.Namespace, console: Console) -> int:
    pairs = [_pair(text) for text in options.ports]
    workspace = await cove.workspaces.get(options.workspace)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        for local, port in pairs:
            forwarding = workspace.forward(port, local_port=local)
            forwarding.on_failure = console.failed
            try:
                await stack.enter_async_context(forwarding)
            except OSError as error:
                console.trouble(
                    f"port {local} of this machine: {error.strerror}",
                    f"Choose another one, cove forward {options.workspace} OTHER:{port}, or 0 "
                    "for any.",
                )
                return 1
            if console.as_json:
                console.json({"address": f"127.0.0.1:{forwarding.port}", "port": port})
            else:
                console.line(f"127.0.0.1:{forwarding.port} -> {port}")
        await stopped.wait()
    return 0
