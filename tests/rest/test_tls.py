"""HTTPS: clients that do not come to an end with their handshake."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from gateway.identity.certificates import Handed
from gateway.rest.app import RestConfig, Tls, rest
from servicekit import loops
from servicekit.tls import Certificates, Files
from tests.support.certificates import Authority

FEW = 5


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, loops.fast])
def test_handshakes_are_so_many_of_a_host_at_most(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    monkeypatch.setattr("gateway.rest.protocol.Connections.__init__.__defaults__", (4096, FEW))
    authority = Authority(tmp_path)
    made = authority.certify(hosts=("127.0.0.1",))
    files = Files(certificate=made.certificate, key=made.key)
    context = ssl.create_default_context(cafile=str(authority.path))

    async def run() -> None:
        config = RestConfig(target="unix:/tmp/cove-no-such-socket")
        tls = Tls(Certificates(files), Handed())
        with ExitStack() as stack:
            async with rest(config, tls=tls) as address, asyncio.timeout(60):
                host, _, port = address.rpartition(":")

                async def alive() -> bool:
                    with suppress(httpx.TransportError):
                        async with httpx.AsyncClient(verify=context, timeout=30) as client:
                            answer = await client.get(f"https://{address}/healthz")
                            return answer.status_code == 200
                    return False

                assert await alive()
                held = [
                    stack.enter_context(socket.create_connection((host, int(port))))
                    for _ in range(FEW)
                ]
                over, writer = await asyncio.open_connection(host, int(port))
                with suppress(ConnectionError):
                    assert await over.read() == b""  # Let go of at once.
                writer.close()
                assert not await alive()
                held.pop().close()
                while not await alive():  # noqa: ASYNC110 - until it is noticed.
                    await asyncio.sleep(0.01)
            # Those that went on were broken off by the stop.
            for each in held:
                each.settimeout(30)
                with suppress(ConnectionError):
                    assert each.recv(1) == b""

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
