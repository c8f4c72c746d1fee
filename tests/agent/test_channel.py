"""A client's end of the socket, against a peer that is played by the test."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent import PROTOCOL_VERSION, frames
from agent.channel import Channel, PeerGone, PeerTooOld


@asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[tuple[Channel, socket.socket]]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()
        async with Channel.open(folder / "s", 5) as channel:
            peer, _ = listener.accept()
            with peer:
                yield channel, peer


def answer(peer: socket.socket, number: int, descriptor: int) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
    peer.sendmsg([frames.frame(PROTOCOL_VERSION, frames.OK, number, b"", 1)], rights)


async def test_a_reply_whose_waiter_leaves_in_that_moment_leaves_no_descriptor(
    tmp_path: Path,
) -> None:
    async with connected(tmp_path) as (channel, peer):
        reading, writing = os.pipe()
        asking = asyncio.ensure_future(channel.request(frames.OPEN, b"", 5))
        await asyncio.to_thread(peer.recv, 100)
        # Both are on the loop's list before the waiter runs again.
        answer(peer, 1, writing)
        os.close(writing)
        loop = asyncio.get_running_loop()
        loop.call_soon(channel._receive)  # noqa: SLF001 # What the loop does when it is readable.
        loop.call_soon(asking.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(os.read, reading, 1) == b""  # No writer is left.
        os.close(reading)


async def test_a_reply_that_nobody_waits_for_leaves_no_descriptor(tmp_path: Path) -> None:
    async with connected(tmp_path) as (channel, peer):
        reading, writing = os.pipe()
        with pytest.raises(PeerGone):
            await channel.request(frames.OPEN, b"", 0.05)
        answer(peer, 1, writing)
        os.close(writing)
        assert await asyncio.to_thread(os.read, reading, 1) == b""
        os.close(reading)


async def test_a_request_broken_off_in_the_middle_ends_the_connection(tmp_path: Path) -> None:
    async with connected(tmp_path) as (channel, _peer):
        with pytest.raises(PeerGone):
            await channel.request(frames.OPEN, bytes(4 << 20), 0.05)
        assert channel.gone.is_set()


async def test_descriptors_of_no_reply_end_the_connection(tmp_path: Path) -> None:
    async with connected(tmp_path) as (channel, peer):
        reading, writing = os.pipe()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", writing))]
        whole = frames.frame(PROTOCOL_VERSION, frames.OK, 1, bytes(100), 1)
        for at in range(frames.MAX_DESCRIPTORS + 1):
            peer.sendmsg([whole[at : at + 1]], rights)
        with pytest.raises(PeerGone):
            await channel.request(frames.OPEN, b"", 5)
        os.close(writing)
        assert await asyncio.to_thread(os.read, reading, 1) == b""
        os.close(reading)


async def test_replies_to_nothing_end_the_connection(tmp_path: Path) -> None:
    async with connected(tmp_path) as (channel, peer):
        with pytest.raises(PeerGone):
            await channel.request(frames.OPEN, b"", 0.05)
        peer.send(frames.frame(PROTOCOL_VERSION, frames.OK, 1, b""))  # Late, but asked for.
        answered = asyncio.ensure_future(channel.request(frames.OPEN, b"", 5))
        await asyncio.to_thread(peer.recv, 100)
        peer.send(frames.frame(PROTOCOL_VERSION, frames.OK, 2, b""))
        assert (await answered).ok
        peer.send(frames.frame(PROTOCOL_VERSION, frames.OK, 1, b""))
        async with asyncio.timeout(30):
            await channel.gone.wait()


async def test_a_reply_of_another_version_leaves_no_descriptor(tmp_path: Path) -> None:
    async with connected(tmp_path) as (channel, peer):
        reading, writing = os.pipe()
        asking = asyncio.ensure_future(channel.request(frames.OPEN, b"", 5))
        await asyncio.to_thread(peer.recv, 100)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", writing))]
        peer.sendmsg([frames.frame(PROTOCOL_VERSION + 1, frames.OK, 1, b"", 1)], rights)
        os.close(writing)
        with pytest.raises(PeerTooOld):
            await asking
        assert await asyncio.to_thread(os.read, reading, 1) == b""
        os.close(reading)


async def test_a_request_that_waits_for_room_ends_with_the_connection(tmp_path: Path) -> None:
    async with connected(tmp_path) as (channel, _peer):
        number = channel._socket.fileno()  # noqa: SLF001 # What the loop knows it by.
        asking = asyncio.ensure_future(channel.request(frames.OPEN, bytes(4 << 20), 60))
        await asyncio.sleep(0)  # It has begun, and fills the socket.
    assert not asyncio.get_running_loop().remove_writer(number)  # Whoever gets the number next.
    async with asyncio.timeout(30):  # Not at the end of its patience.
        with pytest.raises(PeerGone):
            await asking
