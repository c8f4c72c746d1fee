"""Helpers of the agent: archives and watches over descriptors, in processes that are soon gone."""

import asyncio
import io
import os
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent import frames
from agent.client import AgentError, ErrorCode
from tests.agent.node import Node, until

MOST = 32


@contextmanager
def pairs() -> Iterator[tuple[socket.socket, ...]]:
    """Ours and theirs, of a stream and of packets."""
    data = socket.socketpair()
    control = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with data[0], data[1], control[0], control[1]:
        data[0].settimeout(20)
        control[0].settimeout(20)
        yield (*data, *control)


def said(control: socket.socket) -> list[bytes]:
    return frames.unpack(control.recv(frames.MAX_PACKET))


async def test_an_archive_goes_out_and_in(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        made = await box.run("sh", "-c", "mkdir d; echo one > d/a; ln -s a d/l; printf x > d/\xff")
        assert not made.stderr
        with pairs() as (ours, theirs, control, their_control):
            await agent.read_archive("d", theirs.fileno(), their_control.fileno())
            theirs.close()
            their_control.close()
            whole = await asyncio.to_thread(lambda: b"".join(iter(lambda: ours.recv(65536), b"")))
            assert said(control) == [frames.DONE, b"3", b"0"]
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
            assert tar.getnames() == ["a", "l", "\xff"]
        with pairs() as (ours, theirs, control, their_control):
            await agent.write_archive("e", ".cove-x", theirs.fileno(), their_control.fileno())
            theirs.close()
            their_control.close()
            await asyncio.to_thread(ours.sendall, whole)
            ours.shutdown(socket.SHUT_WR)
            assert await asyncio.to_thread(said, control) == [frames.STAGED, b"3", b"5"]
            assert not (box.worktree / "e").exists()
            assert (await agent.listing()).processes == 0  # It is no command's.
            control.send(b"commit")
            assert await asyncio.to_thread(said, control) == [frames.DONE, b"3", b"5"]
        assert (box.worktree / "e" / "a").read_bytes() == b"one\n"
        assert os.readlink(box.worktree / "e" / "l") == "a"  # noqa: PTH115
        assert not list(box.worktree.glob(".cove-*"))


async def test_a_helper_whose_caller_leaves_tidies_up(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        with pairs() as (ours, theirs, _, their_control):
            await agent.write_archive("e", ".cove-x", theirs.fileno(), their_control.fileno())
            info = tarfile.TarInfo("a")
            info.size = 1 << 20
            ours.sendall(info.tobuf() + bytes(100_000))
            await until(lambda: (box.worktree / ".cove-x" / "a").exists())
        await until(lambda: not list(box.worktree.iterdir()))


async def test_helpers_are_bounded_and_can_be_ended(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        with pairs() as (_, _, control, their_control):
            begun = [await agent.watch(".", their_control.fileno()) for _ in range(MOST)]
            with pytest.raises(AgentError) as caught:
                await agent.watch(".", their_control.fileno())
            assert caught.value.code is ErrorCode.LIMIT_REACHED
            for _ in begun:
                assert await asyncio.to_thread(said, control) == [frames.CHANGES]
            for number in begun:
                await agent.end_helper(number)
            await agent.end_helper(1)  # Of nobody.

            async def again() -> bool:
                try:
                    await agent.watch(".", their_control.fileno())
                except AgentError:
                    return False
                return True

            async with asyncio.timeout(20):
                while not await again():  # noqa: ASYNC110 # Nobody tells us.
                    await asyncio.sleep(0.01)


async def test_what_is_no_request_begins_nothing(node: Node) -> None:
    async with node.sandbox() as box, box.agent() as agent:
        for descriptors in ((), (0,), (0, 0, 0)):
            with pytest.raises(AgentError) as caught:
                await agent._help(  # noqa: SLF001 # Nobody else would ask so.
                    frames.READ_ARCHIVE, frames.pack(b"."), *descriptors
                )
            assert caught.value.code is ErrorCode.BAD_REQUEST
        assert (await agent.listing()).processes == 0
