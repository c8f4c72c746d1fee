"""etcd as a reference: one member in a folder of its own, called over gRPC.

Its messages are written and read by field number, as far as is needed here.
"""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet

_EVENTS = 11
"""Field of a WatchResponse."""


class Etcd:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._put: Any = channel.unary_unary("/etcdserverpb.KV/Put")
        self._watch: Any = channel.stream_stream("/etcdserverpb.Watch/Watch")

    async def put(self, key: str, value: bytes) -> None:
        await self._put(_field(1, key.encode()) + _field(2, value))

    @asynccontextmanager
    async def watch(self, prefix: str) -> AsyncIterator[Any]:
        """Of all keys that begin so; it has begun when the block does."""
        begin, end = prefix.encode(), prefix[:-1].encode() + bytes([ord(prefix[-1]) + 1])
        call = self._watch()
        await call.write(_field(1, _field(1, begin) + _field(2, end)))
        await call.read()  # That it was created.
        try:
            yield call
        finally:
            call.cancel()


def events(answer: bytes) -> int:
    """How many events an answer of a watch has."""
    fields: Any = UnknownFieldSet(Empty.FromString(answer))
    return sum(each.field_number == _EVENTS for each in fields)


@asynccontextmanager
async def etcd(folder: Path) -> AsyncIterator[Etcd | None]:
    """None: it is not installed."""
    if shutil.which("etcd") is None:
        yield None
        return
    folder.mkdir(parents=True)
    client, peer = (f"http://127.0.0.1:{port}" for port in _free_ports(2))
    process = await asyncio.create_subprocess_exec(
        *("etcd", "--data-dir", str(folder / "data"), "--name", "one", "--log-level", "error"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"one={peer}"),
        stderr=(folder / "log").open("wb"),
    )
    try:
        async with grpc.aio.insecure_channel(client.removeprefix("http://")) as channel:
            server = Etcd(channel)
            async with asyncio.timeout(60):
                await channel.channel_ready()
                await _ready(server)
            yield server
    finally:
        process.terminate()
        await process.wait()


async def _ready(server: Etcd) -> None:
    while True:
        try:
            await server.put("ready", b"")
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.1)
        else:
            return


def _free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    for each in taken:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports


def _field(number: int, data: bytes) -> bytes:
    """One of bytes, as protobuf writes it."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])
