"""Mutators that are repeated, through a real server."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from servicekit.config import StartError
from servicekit.errors import NotFound
from servicekit.ledger import Ledger, LedgerTooNew
from tests.servicekit.failing import failure
from tests.servicekit.kit import Kit, Protos, running


class Work:
    """Counts how often it was done, and can be held up."""

    def __init__(self) -> None:
        self.times = 0
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.error: Exception | None = None

    async def do(self, text: str) -> str:
        self.times += 1
        self.began.set()
        await self.go_on.wait()
        if self.error:
            raise self.error
        return f"{text} {self.times}"


@asynccontextmanager
async def ledgered(
    protos: Protos, folder: Path, work: Work, **options: Any
) -> AsyncIterator[tuple[Kit, Callable[..., Any]]]:
    """A server whose `Say` does the work once per request id; and a way to call it."""
    async with Ledger.open(folder / "s" / "ledger.db", **options) as ledger:

        async def say(request: Any) -> str:
            async def run() -> Any:
                return protos.pb.SayResponse(text=await work.do(request.text))

            return str((await ledger.once(request, protos.pb.SayResponse, run)).text)

        async with running(protos, folder, say=say) as kit:

            def call(text: str, request_id: str, tenant: str = "t", **fields: Any) -> Any:
                request = protos.pb.SayRequest(text=text, request_id=request_id, **fields)
                metadata = (("cove-tenant", tenant), ("cove-principal", "p"))
                return kit.stub.Say(request, metadata=metadata)

            yield kit, call


async def test_a_repeated_request_gets_the_first_answer(protos: Protos, tmp_path: Path) -> None:
    work = Work()
    async with ledgered(protos, tmp_path, work) as (_, call):
        first = (await call("a", "1")).SerializeToString()
        assert (await call("a", "1")).SerializeToString() == first
    async with ledgered(protos, tmp_path, work) as (_, call):  # Also after a restart.
        assert (await call("a", "1")).SerializeToString() == first
    assert work.times == 1


async def test_without_a_request_id_each_call_runs(protos: Protos, tmp_path: Path) -> None:
    work = Work()
    async with ledgered(protos, tmp_path, work) as (_, call):
        assert (await call("a", "")).text == "a 1"
        assert (await call("a", "")).text == "a 2"


async def test_an_id_belongs_to_its_tenant(protos: Protos, tmp_path: Path) -> None:
    async with ledgered(protos, tmp_path, Work()) as (_, call):
        assert (await call("a", "1", tenant="t")).text == "a 1"
        assert (await call("b", "1", tenant="u")).text == "b 2"


async def test_an_id_with_other_content_is_refused(protos: Protos, tmp_path: Path) -> None:
    work = Work()
    async with ledgered(protos, tmp_path, work) as (_, call):
        await call("a", "1")
        failed = await failure(call("b", "1"))
        assert failed.code is grpc.StatusCode.ALREADY_EXISTS
        assert failed.reason == "REQUEST_ID_REUSED"
        assert failed.info.metadata == {"request_id": "1"}
        work.go_on.clear()
        work.began.clear()
        going = call("c", "2")
        waiting = asyncio.ensure_future(going)
        await work.began.wait()
        assert (await failure(call("d", "2"))).reason == "REQUEST_ID_REUSED"
        work.go_on.set()
        assert (await waiting).text == "c 2"


async def test_secrets_are_no_part_of_the_content(protos: Protos, tmp_path: Path) -> None:
    async with ledgered(protos, tmp_path, Work()) as (_, call):
        spec = protos.pb.SayRequest.Spec

        def nested(secret: str, label: str = "a") -> Any:
            inner = spec(secret=secret, label=label)
            return spec(more=[inner], by_name={"x": inner})

        first = await call("a", "1", spec=nested("old"))
        assert await call("a", "1", spec=nested("new")) == first
        failed = await failure(call("a", "1", spec=nested("new", "b")))
        assert failed.reason == "REQUEST_ID_REUSED"
    assert b"old" not in (tmp_path / "s" / "ledger.db").read_bytes()


async def test_a_request_in_progress_is_joined(protos: Protos, tmp_path: Path) -> None:
    work = Work()
    work.go_on.clear()
    async with ledgered(protos, tmp_path, work) as (_, call):
        waiting = [asyncio.ensure_future(call("a", "1")) for _ in range(5)]
        await work.began.wait()
        work.go_on.set()
        answers = await asyncio.gather(*waiting)
    assert {each.text for each in answers} == {"a 1"}


async def test_the_work_goes_on_when_its_caller_leaves(protos: Protos, tmp_path: Path) -> None:
    work = Work()
    work.go_on.clear()
    async with ledgered(protos, tmp_path, work) as (_, call):
        left = call("a", "1")
        await work.began.wait()
        left.cancel()
        assert left.cancelled()
        work.go_on.set()
        assert (await call("a", "1")).text == "a 1"


async def test_a_failure_is_told_and_not_kept(protos: Protos, tmp_path: Path) -> None:
    work = Work()
    work.error = NotFound("gone")
    async with ledgered(protos, tmp_path, work) as (_, call):
        assert (await failure(call("a", "1"))).code is grpc.StatusCode.NOT_FOUND
        work.error = None
        assert (await call("a", "1")).text == "a 2"


async def test_an_entry_is_forgotten_after_its_time(protos: Protos, tmp_path: Path) -> None:
    clock = [1000.0]
    work = Work()
    options = {"kept": timedelta(hours=24), "now": lambda: clock[0]}
    async with ledgered(protos, tmp_path, work, **options) as (_, call):
        await call("a", "1")
        clock[0] += 86_399
        assert (await call("a", "1")).text == "a 1"
        clock[0] += 2
        assert (await call("a", "1")).text == "a 2"
        clock[0] += 86_401
    async with Ledger.open(tmp_path / "s" / "ledger.db", now=lambda: clock[0]) as ledger:
        assert await ledger.sweep() <= 1  # Opening begins to sweep too.
    with closing(sqlite3.connect(tmp_path / "s" / "ledger.db")) as db:
        assert db.execute("SELECT count(*) FROM entry").fetchone() == (0,)


async def test_leaving_waits_for_work_then_cancels_it(protos: Protos, tmp_path: Path) -> None:
    work = Work()
    work.go_on.clear()
    options = {"grace": timedelta(milliseconds=50)}
    async with asyncio.timeout(30), ledgered(protos, tmp_path, work, **options) as (_, call):
        left = call("a", "1")
        await work.began.wait()
        left.cancel()
    async with ledgered(protos, tmp_path, work) as (_, call):
        work.go_on.set()
        assert (await call("a", "1")).text == "a 2"


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerTooNew, match="version 99"):
        async with Ledger.open(tmp_path / "l.db"):
            pass


async def test_a_file_that_is_no_database_is_told_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.write_bytes(b"what is left of one" * 1000)
    with pytest.raises(StartError, match=f"{path}: cannot be used: file is not a database"):
        async with Ledger.open(path):
            pass
    assert path.read_bytes() == b"what is left of one" * 1000


async def test_many_entries_are_forgotten_in_parts(tmp_path: Path) -> None:
    """After a day without the service: all at once would take much of the disk for its log."""
    path = tmp_path / "l.db"
    async with Ledger.open(path):
        pass
    values = (("t", "p", "/x", str(number), b"d", b"r" * 500, 1.0) for number in range(20_000))
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    async with Ledger.open(path) as ledger:
        await ledger.sweep()
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM entry").fetchone() == (0,)
        assert path.with_name("l.db-wal").stat().st_size < 6 << 20


async def test_the_file_is_private(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "l.db"):
        for file in os.scandir(tmp_path):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import kit_test_pb2 as pb
from servicekit.ledger import Ledger

async def main():
    async with Ledger.open(Path(sys.argv[1])) as ledger:
        await ledger.once(pb.SayRequest(request_id="1"), pb.SayResponse, work)
        os.kill(os.getpid(), signal.SIGKILL)

async def work():
    return pb.SayResponse(text="done")

asyncio.run(main())
"""


async def test_an_answer_survives_a_kill(protos: Protos, tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    argv = [sys.executable, "-c", _KILLED, str(path), str(Path(protos.pb.__file__).parent)]
    killed = await asyncio.to_thread(lambda: subprocess.run(argv, check=False))
    assert killed.returncode == -signal.SIGKILL

    async def again() -> Any:
        raise AssertionError("it was done before")

    async with Ledger.open(path) as ledger:
        request = protos.pb.SayRequest(request_id="1")
        assert (await ledger.once(request, protos.pb.SayResponse, again)).text == "done"
