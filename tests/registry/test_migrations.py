"""A database of any earlier version, of either store, goes on with what it has."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cove.registry.v1.registry_pb2 import Environment
from services.registry.database import migrate
from services.registry.errors import StartError
from services.registry.migrate import Dialect, Migration, migrations, missing, nanoseconds
from services.registry.postgres import copying
from services.registry.store import Key, Order, Place, Record, Span
from services.registry.trail import Removed
from tests.registry.stores import open_store
from tests.registry.test_store import DEMO, put

NEWEST = Order(time="create_time", descending=True)
KEPT = Key("acme", "environments/kept")
# What a registry of the first version would have left.
CONTENT = (
    "INSERT INTO environment (tenant, name, uid, state, operation, lease_start, lease_end,"
    " revision, document) VALUES ('acme', 'environments/kept', 'u', 2, 1, 3, 4, 7, '')",
    "INSERT INTO change (revision, time, tenant, name, uid, document)"
    " VALUES (7, 1, 'acme', 'environments/kept', 'u', '')",
    "UPDATE counter SET latest = 7, compacted = 6",
)


def dialect(database: str) -> Dialect:
    return "postgres" if database.startswith("postgresql:") else "sqlite"


async def run(database: str, statements: Sequence[str]) -> list[Any]:
    """Run them behind the registry's back; the rows of the last one."""
    if dialect(database) == "postgres":
        connection = await asyncpg.connect(database)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return [tuple(row) for row in await connection.fetch(statements[-1])]
        finally:
            await connection.close()
    Path(database).parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.create_function("nanoseconds", 2, nanoseconds)
        for statement in statements[:-1]:
            db.executescript(statement)
        return db.execute(statements[-1]).fetchall()


async def make(database: str, applied: Sequence[Migration]) -> None:
    """A database as the registry that knew just these migrations has left it."""
    statements = ["CREATE TABLE migration (version INTEGER PRIMARY KEY)"]
    for number, script in applied:
        statements += [script, f"INSERT INTO migration VALUES ({number})"]
    if applied:  # SQLite takes no text for bytes.
        content = [each.replace("'')", "X'')") for each in CONTENT]
        statements += CONTENT if dialect(database) == "postgres" else content
    await run(database, [*statements, "SELECT 1"])


@pytest.mark.parametrize("length", range(len(migrations("sqlite"))))
async def test_each_earlier_version_is_brought_up_with_what_it_has(
    database: str, length: int
) -> None:
    known = migrations(dialect(database))
    await make(database, known[:length])
    for _ in range(2):
        async with open_store(database) as store:
            if length:
                assert await store.get(KEPT) == Record(*KEPT, "u", 2, 1, 3, 4, 7, b"")
                assert (await store.span()).compacted == 6
                assert (await store.history(6, 1))[0].name == KEPT.name
            latest = (await store.span()).latest
            assert await store.write(DEMO, put(DEMO)) == b"%d" % (latest + 1)
    applied = await run(database, ["SELECT version FROM migration ORDER BY version"])
    assert applied == [(each.number,) for each in known]


async def test_a_newer_schema_is_refused_and_left_as_it_is(database: str) -> None:
    known = migrations(dialect(database))
    await make(database, [*known, Migration(999, "CREATE TABLE newer (value INTEGER)")])
    tables = {
        "sqlite": "SELECT sql FROM sqlite_schema ORDER BY name",
        "postgres": "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = current_schema ORDER BY 1, 2",
    }[dialect(database)]
    before = await run(database, [tables])
    with pytest.raises(StartError, match="has schema 999"):
        async with open_store(database):
            pass
    assert await run(database, [tables]) == before
    assert await run(database, ["SELECT latest FROM counter"]) == [(7,)]


async def test_a_migration_that_fails_leaves_nothing(database: str) -> None:
    """A table of ours that is there without our having made it: the first one cannot be made."""
    await run(database, ["CREATE TABLE request (other INTEGER)", "SELECT 1"])
    with pytest.raises((StartError, sqlite3.OperationalError)):
        async with open_store(database):
            pass
    names = {
        "sqlite": "SELECT name FROM sqlite_schema WHERE type = 'table'",
        "postgres": "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = current_schema",
    }[dialect(database)]
    assert await run(database, [names]) == [("request",)]


async def test_records_of_before_the_columns_for_times_have_them(database: str) -> None:
    statements = []
    for number, name in enumerate(("a", "b", "c"), start=1):
        environment = Environment(name=f"environments/{name}", tenant="acme", uid=name)
        environment.create_time.FromNanoseconds(number * 10**9)
        environment.update_time.FromNanoseconds(number * 10**9 + 5)
        text = environment.SerializeToString().hex()
        document = rf"'\x{text}'::bytea" if dialect(database) == "postgres" else f"X'{text}'"
        statements += [
            "INSERT INTO environment (tenant, name, uid, state, operation, lease_start, lease_end,"
            f" revision, document) VALUES ('acme', 'environments/{name}', '{name}', 2, 1, 0, 0,"
            f" {number}, {document})",
        ]
    await make(database, migrations(dialect(database))[:1])
    await run(database, [*statements, "SELECT 1"])
    async with open_store(database) as store:
        page = await store.page("acme", None, order=NEWEST, limit=2, max_bytes=1 << 20)
        assert [record.name[-1] for record in page.records] == ["c", "b"]
        assert [record.update_time for record in page.records] == [3 * 10**9 + 5, 2 * 10**9 + 5]
        after = Place("acme", "environments/b", page.records[-1].create_time)
        page = await store.page("acme", after, order=NEWEST, limit=1, max_bytes=1 << 20)
        assert [record.name[-1] for record in page.records] == ["a"]
        (event,) = await store.history(6, 9)
        assert (event.previous, event.before) == (-1, None)


@pytest.mark.parametrize("others", [0, 1])
async def test_what_was_removed_is_told_to_the_tenant_whose_it_surely_was(
    database: str, others: int
) -> None:
    """The schema of before counted over all tenants."""
    await make(database, migrations(dialect(database))[:4])
    tenants = ("acme", "other")[: 1 + others]
    made = [f"INSERT INTO quota (tenant) VALUES ('{each}')" for each in tenants]
    await run(database, [*made, "UPDATE audit_removed SET until = 8, count = 9", "SELECT 1"])
    async with open_store(database) as store:
        for each in tenants:
            assert await store.trail.removed(each) == Removed(8, 0 if others else 9)
        assert await store.trail.removed("later") == Removed()


def test_numbers_may_be_left_out_and_a_lower_one_may_come_later() -> None:
    one, two, four = Migration(1, "a"), Migration(2, "b"), Migration(4, "c")
    assert missing([four, one], []) == [one, four]
    assert missing([four, one], [1, 4]) == []
    assert missing([one, two, four], [1, 4]) == [two]
    with pytest.raises(StartError, match="has schema 2, this registry knows 4"):
        missing([one, four], [1, 2])


def test_both_stores_have_the_same_versions() -> None:
    numbers = {
        each: [found.number for found in migrations(each)] for each in ("sqlite", "postgres")
    }
    assert numbers["sqlite"] == numbers["postgres"]


def test_every_table_is_copied_from_one_store_to_the_other() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db)
        tables = {
            row[0]
            for row in db.execute("SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE TABLE %'")
        }
    assert tables == {*copying.TABLES, "change", "migration"}


async def test_registries_that_start_at_once_make_one_schema(database: str) -> None:
    if dialect(database) == "sqlite":
        return  # One at a time has the file, see test_sqlite.py.
    stores = [open_store(database) for _ in range(5)]
    opened = await asyncio.gather(*(store.__aenter__() for store in stores))
    try:
        assert [await store.span() for store in opened] == [Span(0, 0)] * 5
        assert len({await store.secret("page_tokens") for store in opened}) == 1
    finally:
        for store in stores:
            await store.__aexit__(None, None, None)
