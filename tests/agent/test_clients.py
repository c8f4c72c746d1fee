"""Clients that leave, or are slow, and a listener for which there is no descriptor."""

import asyncio
import errno
import os
import socket
from pathlib import Path

import pytest

from agent import PROTOCOL_VERSION, frames
from agent.client import PeerGone
from agent.clients import Clients
from agent.inside.connection import Connection
from agent.standin.runner import Asked, Ending, Output
from agent.standin.server import Server
from tests.agent.node import until
from tests.agent.test_standin import UID, _Bench, _Runner, bench

__all__ = ["bench"]

LOOKS = 1000
MUCH = 600_000
"""Bytes; more than a socket holds."""


class _Exhausted(socket.socket):
    """A listener of a process that has no descriptor to spare, for a while."""

    attempts = 0
    free = False

    def accept(self) -> tuple[socket.socket, object]:
        self.attempts += 1
        if not self.free:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


async def test_a_listener_that_cannot_accept_does_not_spin(tmp_path: Path) -> None:
    came: list[Connection] = []
    with _Exhausted(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as peer:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        clients = Clients(listener, (os.getuid(),), 1, came.append)
        peer.connect(str(tmp_path / "s"))
        for _ in range(LOOKS):
            await asyncio.sleep(0)
        assert 0 < listener.attempts < LOOKS // 10
        listener.free = True
        peer.sendall(b"x")
        await until(lambda: came)  # It was only waiting.
        clients.close()


class _Slow(_Runner):
    """Whose engine takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.checking = asyncio.Event()
        self.go = asyncio.Event()
        self.ending = asyncio.Event()
        self.end = asyncio.Event()

    async def check(self, uid: str, asked: Asked) -> None:
        if asked.key == "late":
            self.checking.set()
            await self.go.wait()
        await super().check(uid, asked)

    async def run(self, uid: str, asked: Asked, output: Output) -> Ending:
        try:
            return await super().run(uid, asked, output)
        except asyncio.CancelledError:
            self.ending.set()
            await self.end.wait()
            raise


async def test_who_has_gone_when_what_it_waited_for_ends_leaves_room(bench: _Bench) -> None:
    """As many as there is room for, each in turn: a number that is used again is another's."""
    for turn in range(70):
        name = f"sleep{turn}"
        folder = await bench.start(name, "sleep", "600")
        payload = frames.pack(name.encode(), b"somebody", 0)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(bench.folder / "a" / UID))
            peer.sendall(frames.frame(PROTOCOL_VERSION, frames.CANCEL, 1, payload))
            peer.shutdown(socket.SHUT_RD)
            await bench.ended(folder)
    async with bench.agent() as client:
        assert len((await client.listing()).executions) == 70


async def test_an_answer_that_does_not_fit_at_once_follows(tmp_path: Path) -> None:
    async def tell(_: dict[str, object]) -> dict[str, object]:
        return {"much": "x" * MUCH}

    server = Server("double", tmp_path, _Runner(), {"tell": tell})
    try:
        told = await _Bench(tmp_path, _Runner()).ask("tell")
        assert told == {"much": "x" * MUCH}
    finally:
        await server.close()


async def test_a_start_that_comes_while_it_leaves_runs_nothing(tmp_path: Path) -> None:
    runner = _Slow()
    server = Server("double", tmp_path, runner, {})
    bench = _Bench(tmp_path, runner)
    await bench.ask("bind", uid=UID)
    try:
        await bench.start("one", "sleep", "600")
        late = asyncio.create_task(bench.start("late", "true"))
        await runner.checking.wait()
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(bench.ask("unbind", uid=UID))
            await runner.ending.wait()
            runner.go.set()
            await until(lambda: late.done() or "late" in runner.ran)
            runner.end.set()
        assert ended.result() == {"found": True}
        with pytest.raises(PeerGone):  # As of an agent that ends: it is dormant.
            await late
        assert (tmp_path / "late" / "log").read_bytes() == b""
        await bench.ask("bind", uid=UID)
        await bench.ended(await bench.start("late", "true"))
        assert runner.ran == ["one", "late"]
    finally:
        await server.close()


async def test_who_binds_what_ends_with_the_stand_in_stops_nothing(tmp_path: Path) -> None:
    runner = _Slow()
    server = Server("double", tmp_path, runner, {})
    bench = _Bench(tmp_path, runner)
    await bench.ask("bind", uid=UID)
    await bench.start("one", "sleep", "600")
    closing = asyncio.create_task(server.close())
    await runner.ending.wait()
    # As if it had come before: no more are taken.
    binding = asyncio.create_task(server._bind({"uid": UID}))  # noqa: SLF001
    await asyncio.sleep(0)
    runner.end.set()
    await closing
    assert await binding == {"started": True}
    await server.close()


async def test_two_who_end_it_by_force_at_once_are_both_answered(bench: _Bench) -> None:
    await bench.start("one", "sleep", "600")
    asked = [bench.ask("leave", uid=UID, force=True) for _ in range(2)]
    assert [each["ended"] for each in await asyncio.gather(*asked)] == [True, True]
    assert (await bench.ask("bound"))["uids"] == []


async def test_what_moves_files_is_held_while_it_is_bound_and_told_to_leave_at_the_end(
    tmp_path: Path,
) -> None:
    (tmp_path / "f").mkdir()
    left = asyncio.Event()

    def came(client: Connection) -> None:
        for kind, number, _, _ in client.receive():
            if kind == frames.LEAVE:
                left.set()
            client.reply(frames.OK, number, frames.pack(1))

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "f" / UID))
    listener.listen()
    beside = Clients(listener, (os.getuid(),), 8, came)
    server = Server("double", tmp_path, _Runner(), {})
    bench = _Bench(tmp_path, _Runner())
    try:
        await bench.ask("bind", uid=UID, idle=0.2)
        await until(lambda: len(beside) == 1)
        async with asyncio.timeout(60):
            await left.wait()  # Nothing runs, and nobody asks.
        await until(lambda: len(beside) == 0)
        await until(lambda: not server.active(UID))
    finally:
        await server.close()
        beside.close()
