"""A proxy that breaks nothing would prove nothing: what each one does, to a stock client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import h2.events
import hpack
import pytest
import pytest_asyncio

from tests.attacks.wire.frames import Peer
from tests.interop.frames import Frames, Paths
from tests.interop.proxies import Cutting, Losing, LosingWeb

_UNARY: Final = "/test.Echo/Once"
_STREAM: Final = "/test.Echo/Much"
_PART: Final = 64 * 1024
_PARTS: Final = 40
_MIB: Final = 1 << 20


def once(channel: grpc.aio.Channel, path: str = _UNARY) -> Any:
    return channel.unary_unary(path)


def much(channel: grpc.aio.Channel) -> Any:
    return channel.unary_stream(_STREAM)


class Echo(grpc.GenericRpcHandler):
    """Counts what it was asked."""

    def __init__(self) -> None:
        self.done: list[bytes] = []

    def service(self, details: Any) -> Any:
        if details.method == _UNARY:
            return grpc.unary_unary_rpc_method_handler(self._once)
        if details.method == _STREAM:
            return grpc.unary_stream_rpc_method_handler(self._much)
        return None

    async def _once(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("head", "seen"),))
        self.done.append(request)
        return request

    async def _much(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(_PARTS):
            yield bytes([number]) * _PART


@pytest_asyncio.fixture
async def echo() -> AsyncIterator[tuple[Echo, str]]:
    server, made = grpc.aio.server(), Echo()
    server.add_generic_rpc_handlers((made,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield made, f"127.0.0.1:{port}"
    await server.stop(None)


@asynccontextmanager
async def fresh(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel with a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        yield channel


async def test_every_other_connection_loses_its_first_answer(echo: tuple[Echo, str]) -> None:
    server, address = echo
    answers: list[object] = []
    async with Losing(address).serving() as proxy:
        for number in range(6):
            async with fresh(proxy.address) as channel:
                try:
                    answers.append(await once(channel)(b"%d" % number))
                except grpc.aio.AioRpcError as error:
                    answers.append(error.code())
    assert server.done == [b"%d" % number for number in range(6)]
    broken, ended = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL
    assert answers == [broken, b"1", broken, b"3", ended, b"5"]
    assert proxy.lost == [_UNARY] * 3
    assert (proxy.connections, proxy.cuts) == (6, 3)


async def test_the_head_of_an_answer_is_seen_where_a_connection_is_not_reset(
    echo: tuple[Echo, str],
) -> None:
    async with Losing(echo[1]).serving() as proxy:
        seen = [await asyncio.to_thread(_heads, proxy.address) for _ in range(6)]
    assert seen == [0, 1, 1, 1, 1, 1]


def _heads(address: str) -> int:
    """How many heads of answers come before the connection, or the call, ends."""
    found = 0
    with Peer(address) as peer:
        stream = peer.begin(_UNARY)
        peer.h2.send_data(stream, b"\0\0\0\0\0", end_stream=True)
        peer.flush()
        while (events := peer.events()) is not None:
            found += sum(isinstance(each, h2.events.ResponseReceived) for each in events)
            if any(isinstance(each, h2.events.StreamEnded) for each in events):
                break
    return found


async def test_an_answer_that_is_a_failure_is_lost_too(echo: tuple[Echo, str]) -> None:
    async with Losing(echo[1]).serving() as proxy, fresh(proxy.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await once(channel, "/test.Echo/Nothing")(b"")
        assert told.value.code() is grpc.StatusCode.UNAVAILABLE
    assert proxy.lost == ["/test.Echo/Nothing"]


async def test_a_connection_is_cut_after_so_many_bytes(echo: tuple[Echo, str]) -> None:
    ends = []
    async with Cutting(echo[1]).serving() as proxy:
        for _ in range(2):
            got = 0
            async with fresh(proxy.address) as channel:
                try:
                    async for part in much(channel)(b""):
                        got += len(part)
                except grpc.aio.AioRpcError as error:
                    ends.append((error.code(), got))
        # How much of it a stock client hands on is its own affair.
        seen = [await asyncio.to_thread(_bytes, proxy.address) for _ in range(2)]
    assert [code for code, _ in ends] == [grpc.StatusCode.UNAVAILABLE] * 2
    assert all(got < _MIB for _, got in ends)
    assert seen[0] < _MIB
    # An end throws away nothing that was said before.
    assert _MIB - _PART < seen[1] < _MIB
    assert (proxy.connections, proxy.cuts) == (4, 4)


def _bytes(address: str) -> int:
    """How many bytes of messages come before the connection ends."""
    found = 0
    with Peer(address) as peer:
        stream = peer.begin(_STREAM)
        peer.h2.send_data(stream, b"\0\0\0\0\0", end_stream=True)
        peer.flush()
        while (events := peer.events()) is not None:
            for each in events:
                if isinstance(each, h2.events.DataReceived):
                    found += len(each.data)
                    peer.h2.acknowledge_received_data(each.flow_controlled_length, stream)
            peer.raw(peer.h2.data_to_send())
    return found


async def test_nothing_is_cut_before(echo: tuple[Echo, str]) -> None:
    async with (
        Cutting(echo[1], after=64 * _MIB).serving() as proxy,
        fresh(proxy.address) as channel,
    ):
        parts = [part async for part in much(channel)(b"")]
    assert b"".join(parts) == b"".join(bytes([number]) * _PART for number in range(_PARTS))
    assert proxy.cuts == 0


async def test_every_other_call_of_a_browser_loses_its_answer() -> None:
    server = await asyncio.start_server(_answering, "127.0.0.1", 0)
    address = "{}:{}".format(*server.sockets[0].getsockname())
    async with server, LosingWeb(address).serving() as proxy:
        calls = [("POST", "/a.B/C"), ("OPTIONS", "/a.B/C"), ("POST", "/a.B/C"), ("POST", "/a.B/D")]
        answers = [await _web(proxy.address, method, path) for method, path in calls]
    assert answers == [
        b"",
        b"HTTP/1.1 200\r\n\r\nhi",
        b"HTTP/1.1 200\r\n\r\nhi",
        b"HTTP/1.1 200\r\n\r\n",
    ]
    assert proxy.lost == ["/a.B/C", "/a.B/D"]
    assert proxy.cuts == 2


async def _answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200\r\n\r\nhi")
    writer.close()


async def _web(address: str, method: str, path: str) -> bytes:
    """All that comes back; nothing when the connection is reset."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{method} {path} HTTP/1.1\r\n\r\n".encode())
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def test_frames_are_cut_wherever_the_bytes_are() -> None:
    block = hpack.Encoder().encode([(b":method", b"POST"), (b":path", b"/a.B/C")])
    padded = b"\x02" + b"\0\0\0\0\x10" + block[:1] + b"\0\0"
    said = (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(0x4, 0, 0, b"")
        + _frame(0x1, 0x28, 3, padded)
        + _frame(0x9, 0x4, 3, block[1:])
        + _frame(0x0, 0x1, 3, b"body")
    )
    paths, frames = Paths(), Frames(preface=True)
    kinds = []
    for number in range(len(said)):
        paths.feed(said[number : number + 1])
        kinds += [frame.kind for frame in frames.feed(said[number : number + 1])]
    assert paths.of(3) == "/a.B/C"
    assert kinds == [0x4, 0x1, 0x9, 0x0]


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + body
