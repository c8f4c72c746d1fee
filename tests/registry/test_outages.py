"""PostgreSQL is lost, restarted, full or slow: nothing half-done, and callers are told."""

import asyncio
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import asyncpg
import grpc
import pytest

from cove.registry.v1 import registry_pb2 as pb
from services.registry.config import Config
from services.registry.errors import (
    DatabaseUnavailable,
    DiskFull,
    StartError,
)
from services.registry.postgres.database import Database
from services.registry.postgres.store import PostgresStore
from services.registry.store import Outcome, Record, RequestId, Span
from tests.registry.caller import refused
from tests.registry.postgres import PASSWORD, Postgres, running, user
from tests.registry.proxy import Proxy
from tests.registry.replicas import reached, replicas
from tests.registry.test_store import DEMO, key, put
from tests.registry.test_watch import READY, read, take, told

REQUEST = RequestId("acme", "ada", "Rpc", "id", b"")


def end(server: Postgres, purpose: str) -> int:
    """End the connections of this purpose; how many there were.

    Those of a store that was closed a moment ago may be among them.
    """
    return len(
        server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE application_name = 'cove-registry {purpose}'"
        )
    )


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_whose_end_is_not_known_is_found_out_by_its_request_id(
    postgres: Postgres,
    url: str,
    between: tuple[Proxy, Path],
    when: Literal["before", "after"],
) -> None:
    cutter, folder = between
    async with PostgresStore.open(url.replace(str(postgres.folder), str(folder))) as store:
        cutter.cut(when, "COMMIT")
        writes = [store.write(DEMO, put(DEMO), REQUEST), store.write(key(1), put(key(1)))]
        for failure in await asyncio.gather(*writes, return_exceptions=True):
            assert isinstance(failure, DatabaseUnavailable)
            assert failure.retry_after
        if when == "after":  # The server may still be at it.
            await reached(store, 2)
        assert (await store.span()).latest == (2 if when == "after" else 0)
        assert await store.write(DEMO, put(DEMO), REQUEST) == b"1"
        assert await store.write(key(2), put(key(2))) == (b"3" if when == "after" else b"2")
        await reached(store, 2)
        assert await store.feed.after(0, 0) == await store.history(0, 9)


@pytest.mark.parametrize("statement", ["BEGIN", "ROLLBACK"])
async def test_what_is_surely_not_done_is_done_anew(
    postgres: Postgres, url: str, between: tuple[Proxy, Path], statement: str
) -> None:
    cutter, folder = between

    def nothing(_: Record | None, _revision: int) -> Outcome:
        return Outcome(response=b"nothing")

    async with PostgresStore.open(url.replace(str(postgres.folder), str(folder))) as store:
        await store.write(DEMO, put(DEMO))
        for _ in range(3):
            cutter.cut("after", statement)
            if statement == "BEGIN":
                await store.write(DEMO, put(DEMO))
            else:
                assert await store.write(DEMO, nothing) == b"nothing"
        assert (await store.span()).latest == (4 if statement == "BEGIN" else 1)


async def test_idle_connections_that_died_are_replaced_unnoticed(
    postgres: Postgres, url: str
) -> None:
    async with PostgresStore.open(url) as store:
        for number in range(1, 4):
            assert await store.write(DEMO, put(DEMO)) == b"%d" % number
            assert end(postgres, "writer") >= 1
            assert end(postgres, "reader") >= 1
            assert await store.exists(DEMO)
            assert await store.span() == Span(0, number)


async def test_a_connection_that_dies_while_it_is_decided_costs_nothing(
    postgres: Postgres, url: str
) -> None:
    times = 0

    def change(current: Record | None, revision: int) -> Outcome:
        nonlocal times
        times += 1
        if times == 1:
            assert end(postgres, "writer") >= 1
        return put(DEMO)(current, revision)

    async with PostgresStore.open(url) as store:
        await store.write(key(1), put(key(1)))
        assert await store.write(DEMO, change, REQUEST) == b"2"
        assert times == 2
        assert await store.span() == Span(0, 2)


async def test_a_commit_waits_for_the_disk_whatever_the_default_is(url: str) -> None:
    for default, found in (("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")):
        database = Database(f"{url}&synchronous_commit={default}")
        db = await database.connect("test")
        assert await db.fetchval("SHOW synchronous_commit") == found
        await db.close()
        async with database.pool():  # Tokens, quotas and the audit log are written by these.
            asked = await database.read(lambda db: db.fetchval("SHOW synchronous_commit"))
            assert asked == found


async def test_data_that_the_database_refuses_fail_alone(url: str) -> None:
    bad = key(1)._replace(name="environments/\0")
    async with PostgresStore.open(url) as store:
        answers = await asyncio.gather(
            store.write(key(0), put(key(0))),
            store.write(bad, put(bad)),
            store.write(key(2), put(key(2))),
            return_exceptions=True,
        )
        assert (answers[0], answers[2]) == (b"1", b"2")
        assert isinstance(answers[1], asyncpg.DataError | asyncpg.PostgresError)
        assert not isinstance(answers[1], DatabaseUnavailable)


async def test_the_password_is_told_nowhere(
    postgres: Postgres,
    url: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    schema = url.rpartition("=")[2]
    right = postgres.url(schema, "locked", PASSWORD)
    said = [repr(Config(state=tmp_path, runtime=tmp_path, database=right))]
    async with PostgresStore.open(right) as store:
        await store.write(DEMO, put(DEMO))
        end(postgres, "writer")
        await store.write(DEMO, put(DEMO))
    wrong = (
        right.replace("@/", "x@/"),  # Another password.
        f"postgresql://locked:{PASSWORD}@/cove?host={postgres.folder}",  # Not encoded.
        f"postgresql://locked:{PASSWORD}@host:port/cove",
        right.replace(str(postgres.folder), str(tmp_path)),  # No server.
        right.replace("/cove?", "/none?"),
        f"{right}&sslmode={PASSWORD}",
        f"{right}&sslmode=verify-full&sslrootcert=/none",
    )
    for each in wrong:
        with pytest.raises(StartError) as caught:
            async with PostgresStore.open(each, start_wait=0):
                pass
        said.append(str(caught.value))
        assert caught.value.__suppress_context__
    out, err = capfd.readouterr()
    for text in (*said, caplog.text, out, err):
        assert "w/rd" not in text
        assert "pass:" not in text


def test_a_url_in_a_variable_is_one(tmp_path: Path) -> None:
    shared = {"COVE_STATE": str(tmp_path), "COVE_RUNTIME": str(tmp_path)}
    config = Config.from_env({**shared, "COVE_REGISTRY__DATABASE": "postgresql://a:b@c/d"})
    assert config.database_url == "postgresql://a:b@c/d"
    config = Config.from_env({**shared, "COVE_REGISTRY__DATABASE": "/x/y.db"})
    assert (config.database_url, config.database_path) == ("", Path("/x/y.db"))


async def test_a_role_without_the_right_is_told_at_the_start(postgres: Postgres, url: str) -> None:
    postgres.sql(f"REVOKE ALL ON SCHEMA {url.rpartition('=')[2]} FROM cove, locked")
    postgres.sql(f"ALTER SCHEMA {url.rpartition('=')[2]} OWNER TO root")
    with pytest.raises(StartError, match="the database refuses"):
        async with PostgresStore.open(url):
            pass


async def test_it_is_told_while_the_database_is_away_and_goes_on_after_it(tmp_path: Path) -> None:
    with running(fsync=True) as server:
        config = Config(
            state=tmp_path,
            runtime=tmp_path,
            database=server.fresh(),
            heartbeat=timedelta(seconds=0.1),
            shutdown_grace=timedelta(seconds=1),
        )
        async with replicas(config, tmp_path) as (one, two):
            made = await one.register("a")
            async with two.watch(from_revision=made.revision) as call:
                assert told(await read(call)) == ("heartbeat", made.revision)
                server.stop()
                for caller in (one, two):
                    for request in (
                        pb.GetEnvironmentRequest(name=made.name),
                        pb.ListEnvironmentsRequest(),
                        pb.UpdateEnvironmentStatusRequest(name=made.name, state=READY),
                    ):
                        with refused(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
                            await caller(request)
                server.start()
                moved = await one.move("a", READY)
                assert moved.revision == made.revision + 1
                assert await take(call, 1) == [("put", moved.revision)]


@pytest.fixture
def small(postgres: Postgres) -> Iterator[Path]:
    """A disk of 4 MiB that PostgreSQL may write to."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can make a small disk")
    folder = Path(tempfile.mkdtemp(prefix="cove-pg-"))
    folder.chmod(0o755)
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=4m,uid={user()[0]}", "small", disk], check=False
    )
    try:
        if mounted.returncode:
            pytest.skip("no tmpfs can be mounted here")
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=False)
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_full_disk_is_told_and_survived(postgres: Postgres, url: str, small: Path) -> None:
    async with PostgresStore.open(url) as store:
        schema = url.rpartition("=")[2]
        space = f"small_{schema}"
        postgres.sql(f"CREATE TABLESPACE {space} LOCATION '{small}'")
        try:
            postgres.sql(f"ALTER TABLE {schema}.change SET TABLESPACE {space}")
            fill = (
                store.write(key(number), put(key(number), os.urandom(200_000)))
                for number in range(50)
            )
            answers = [await _answer(each) for each in fill]
            written = sum(isinstance(each, bytes) for each in answers)
            assert any(isinstance(each, DiskFull) for each in answers)
            assert 5 < written < 50
            assert await store.span() == Span(0, written)
            for number, answer in enumerate(answers):
                assert await store.exists(key(number)) is isinstance(answer, bytes)
            assert await store.write(DEMO, put(DEMO)) == b"%d" % (written + 1)
            await reached(store, written + 1)
        finally:
            postgres.sql(f"ALTER TABLE {schema}.change SET TABLESPACE pg_default")
            postgres.sql(f"DROP TABLESPACE {space}")


async def _answer(write: Awaitable[bytes]) -> bytes | Exception:
    try:
        return await write
    except DiskFull as error:
        return error


@pytest.mark.long
async def test_who_holds_the_counter_and_is_silent_holds_up_nobody_for_ever(url: str) -> None:
    async with PostgresStore.open(url) as one, PostgresStore.open(url) as two:
        silent = await asyncpg.connect(
            url, server_settings={"idle_in_transaction_session_timeout": "5s"}
        )
        await silent.execute("BEGIN; UPDATE counter SET latest = 100")
        assert await one.write(DEMO, put(DEMO)) == b"1"  # Once it has been thrown out.
        forever = await asyncpg.connect(url)
        await forever.execute("BEGIN; UPDATE counter SET latest = 100")
        writes = [store.write(DEMO, put(DEMO), REQUEST) for store in (one, two)]
        for failure in await asyncio.gather(*writes, return_exceptions=True):
            assert isinstance(failure, DatabaseUnavailable)
        await forever.close()
        assert await two.write(DEMO, put(DEMO), REQUEST) == b"2"
        silent.terminate()
