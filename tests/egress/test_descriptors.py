"""An agent that passes what is no listener of its sandbox, or plays with the one it has."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.egress import PORT
from agent.egress_client import EgressError, WayOut
from tests.agent import node as nodes
from tests.egress.world import HERE, Proxy, inside, outside


def _fifo() -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def _file() -> int:
    return os.open("/proc/self/status", os.O_RDONLY)


def _directory() -> int:
    return os.open("/", os.O_PATH)


def _device() -> int:
    return os.open("/dev/zero", os.O_RDONLY)


def _socket(family: int, kind: int, protocol: int = 0, address: Any = None) -> int:
    made = socket.socket(family, kind, protocol)
    if address:
        made.bind(address)
        if kind == socket.SOCK_STREAM:
            made.listen(1)
    return made.detach()


def _host_listener() -> int:
    return _socket(socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 0))


def _host_listener_on_all() -> int:
    return _socket(socket.AF_INET, socket.SOCK_STREAM, 0, ("0.0.0.0", 0))


def _host_listener_ipv6() -> int:
    return _socket(socket.AF_INET6, socket.SOCK_STREAM, 0, ("::1", 0))


def _unix() -> int:
    return _socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, f"\0cove-{os.getpid()}")


def _datagram() -> int:
    return _socket(socket.AF_INET, socket.SOCK_DGRAM, 0, ("127.0.0.1", 0))


def _not_listening() -> int:
    return _socket(socket.AF_INET, socket.SOCK_STREAM)


def _connected() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname()).detach()


def _pair() -> int:
    one, two = socket.socketpair()
    two.close()
    return one.detach()


def _netlink() -> int:
    return _socket(socket.AF_NETLINK, socket.SOCK_RAW)


WRONG: list[Callable[[], int]] = [
    *(_fifo, _file, _directory, _device, _host_listener, _host_listener_on_all),
    *(_host_listener_ipv6, _unix, _datagram, _not_listening, _connected, _pair, _netlink),
]


async def test_what_is_no_listener_of_a_sandbox_is_refused(box: nodes.Box, proxy: Proxy) -> None:
    """Also after a right one: then that is closed, as who has it cannot be trusted."""
    async with proxy.client() as client, box.agent() as agent:
        way = WayOut(uid=box.uid, rules=[("*", [443])])
        for make in WRONG:
            await proxy.let_with(client, agent, box, ("*", [443]))
            descriptor = make()
            try:
                with pytest.raises(EgressError):
                    await client.open(way, agent.pid, (descriptor, agent.pidfd))
            finally:
                os.close(descriptor)
            assert box.uid not in await client.list(), make.__name__
        with pytest.raises(EgressError):
            await client.open(way, agent.pid, ())  # type: ignore[arg-type]


async def test_who_plays_with_its_listener_stalls_itself(
    node: nodes.Node, box: nodes.Box, proxy: Proxy
) -> None:
    """The agent has the same open file: it accepts itself, and makes it block, and not."""
    async with outside() as server, node.sandbox() as bad:
        await proxy.let(box, (HERE, [server.port]))
        await proxy.let(bad, (HERE, [server.port]))
        async with bad.agent() as agent:
            copy = socket.socket(fileno=await agent.listen(PORT))
        done = threading.Event()

        def play() -> None:
            while not done.is_set():
                with suppress(OSError):
                    copy.setblocking(False)
                    taken, _ = copy.accept()
                    taken.close()
                with suppress(OSError):
                    copy.setblocking(True)

        playing = asyncio.create_task(asyncio.to_thread(play))
        knock = (
            "for _ in range(200):\n"
            "    try: socket.create_connection(('127.0.0.1', 3128), 5).close()\n"
            "    except OSError: pass\n"
        )
        knocking = asyncio.create_task(inside(bad, knock))
        try:
            for _ in range(3):
                get = f"talk(b'GET http://{HERE}:{server.port}/ HTTP/1.0\\r\\n\\r\\n')"
                assert "hello" in await inside(box, f"print({get})")
            async with proxy.client() as client:
                assert await client.close(bad.uid)
        finally:
            done.set()
            await playing
            await knocking
            copy.close()


async def test_nothing_is_left_of_a_sandbox_that_ended(node: nodes.Node, proxy: Proxy) -> None:
    proxy.kill()
    proxy.start()  # One that has yet to let go of nothing else.
    assert proxy.process
    folder = Path(f"/proc/{proxy.process.pid}")

    def held() -> tuple[int, int]:
        """Threads and, where we may look into the proxy, descriptors."""
        descriptors = list((folder / "fd").iterdir()) if os.geteuid() == 0 else []
        return len(list((folder / "task").iterdir())), len(descriptors)

    async with outside(echo=True) as server, proxy.client() as client:
        before = held()
        async with node.sandbox() as box, box.agent() as agent:
            await proxy.let_with(client, agent, box, (HERE, [server.port]))
            script = (
                "import socket, time\npeer = socket.create_connection(('127.0.0.1', 3128))\n"
                f"peer.sendall(b'CONNECT {HERE}:{server.port} HTTP/1.1\\r\\n\\r\\n')\n"
                "time.sleep(600)"
            )
            sinks = box.sinks("stays")
            await agent.start("stays", nodes.command(*nodes.python(script)), sinks)
            nodes.close(sinks)
            await nodes.until(lambda: server.received)
            assert held() > before
        await nodes.until(lambda: server.ended)
        await nodes.until(lambda: held() <= before)
        assert box.uid not in await client.list()
