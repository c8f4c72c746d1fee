"""PostgreSQL is lost, or has no room, in the middle of something: what is told is so."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from cove.options.v1.options_pb2 import Role
from cove.registry.v1 import access_pb2
from servicekit.filters.filters import Filter
from servicekit.quota import NONE
from services.registry.errors import DatabaseUnavailable, RevisionCompacted
from services.registry.fields import FIELDS
from services.registry.postgres import database as database_module
from services.registry.postgres.database import Connection, Database
from services.registry.postgres.store import PostgresStore
from services.registry.postgres.tenants import LOCK
from services.registry.postgres.tokens import PostgresTokens
from services.registry.quotas import updated
from services.registry.retention import Retention
from services.registry.store import Outcome, Record, RequestId, Span
from services.registry.tokens import Draft, Token, TokenExists
from services.registry.watch import watch
from tests.registry.postgres import Postgres
from tests.registry.proxy import Proxy
from tests.registry.replicas import reached
from tests.registry.test_outages import end
from tests.registry.test_store import key, put

REQUEST = RequestId("acme", "ada", "Rpc", "id", b"")


async def test_a_token_or_a_quota_whose_commit_is_not_answered_is_told_so_or_found_out(
    postgres: Postgres, url: str, between: tuple[Proxy, Path]
) -> None:
    """Done again, it would stand in its own way."""
    cutter, folder = between
    token = Token("acme", "ci", Role.ROLE_READER, "", "", "", "ada")
    draft = Draft(token=token, lifetime=10**12, hash=bytes(32))
    limits = access_pb2.QuotaLimits(workspaces=3)
    asked = access_pb2.UpdateQuotaRequest(quota=access_pb2.Quota(limits=limits, etag="0"))
    asked.update_mask.paths.append("limits")
    change = partial(updated, asked, NONE)
    async with PostgresStore.open(url.replace(str(postgres.folder), str(folder))) as store:
        cutter.cut("after", "COMMIT;")
        with pytest.raises(DatabaseUnavailable):
            await store.tokens.create(draft)
        cutter.cut("after", "COMMIT;")
        with pytest.raises(DatabaseUnavailable):
            await store.quotas.update("acme", change)
        assert (await store.quotas.get("acme")).workspaces == 3
        assert [each.id for each in await store.tokens.page("acme", "", 9, ended=True)] == ["ci"]

        other = replace(draft, token=token._replace(id="other"), hash=bytes(31) + b"1")
        cutter.cut("after", "COMMIT;")
        answer = await store.tokens.create(other, REQUEST)
        assert answer == await store.tokens.create(other, REQUEST)


async def test_who_follows_what_a_standby_never_had_begins_anew(
    postgres: Postgres, url: str
) -> None:
    """Also who is busy with an event meanwhile: revisions come again, with other changes."""
    schema = url.rpartition("=")[2]
    async with PostgresStore.open(url) as store:
        for number in range(10):
            await store.write(key(number), put(key(number)))
        await reached(store, 10)
        behind, ahead = (
            watch(store, None, revision, timedelta(seconds=9), Filter("", FIELDS))
            for revision in (6, 9)
        )
        assert [(await anext(each)).revision for each in (behind, ahead)] == [7, 10]  # type: ignore[union-attr]
        postgres.sql(
            f"UPDATE {schema}.counter SET latest = 8;DELETE FROM {schema}.change WHERE revision > 8"
        )
        channel = f"'cove_' || '{schema}.counter'::regclass::oid"
        postgres.sql(f"SELECT pg_notify({channel}, '11')")  # So that it looks.
        while store.feed.latest != 8:  # noqa: ASYNC110 - it tells nobody else.
            await asyncio.sleep(0.01)
        for number in range(4):
            await store.write(key(number), put(key(number)))
        with pytest.raises(RevisionCompacted):
            await anext(ahead)
        assert (await anext(behind)).revision == 8  # type: ignore[union-attr]
        for each in (behind, ahead):
            await each.aclose()


async def test_what_a_rule_refuses_costs_no_connection(url: str) -> None:
    """To begin one is a process of the database's."""
    token = Token("acme", "ci", Role.ROLE_READER, "", "", "", "ada")
    draft = Draft(token=token, lifetime=10**12, hash=bytes(32))
    database = Database(url)
    async with PostgresStore.open(url), database.pool():
        tokens = PostgresTokens(database, None, Retention())
        await tokens.create(draft)
        before = await database.read(lambda db: db.fetchval("SELECT pg_backend_pid()"))
        with pytest.raises(TokenExists):
            await tokens.create(draft)
        assert await database.read(lambda db: db.fetchval("SELECT pg_backend_pid()")) == before
        assert (await tokens.valid([draft.hash]))[0].token.id == "ci"


async def test_who_waited_for_the_counter_in_vain_does_not_wait_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database_module._SETTINGS, "lock_timeout", "50ms")  # noqa: SLF001
    runs = 0

    async def work(db: Connection) -> None:
        nonlocal runs
        runs += 1
        await db.execute(LOCK)

    database = Database(url)
    async with PostgresStore.open(url), database.pool():
        holder = await database.connect("holder")
        await holder.execute(f"BEGIN; {LOCK}")
        with pytest.raises(DatabaseUnavailable):
            await database.write(work, again=True)
        await holder.close()
        assert runs == 1
        await database.write(work, again=True)


async def test_when_all_connections_are_in_use_none_is_thrown_away(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not dead: to connect anew is the last that a database with much to do needs."""
    held, free = [asyncio.Event() for _ in range(12)], asyncio.Event()
    database = Database(url)

    async def hold(began: asyncio.Event) -> int:
        async def work(db: Connection) -> int:
            began.set()
            await free.wait()
            return int(await db.fetchval("SELECT pg_backend_pid()"))

        return await database.read(work)

    async with database.pool():
        holding = [asyncio.create_task(hold(began)) for began in held]
        for began in held:
            await began.wait()
        monkeypatch.setattr("services.registry.postgres.database.CONNECT_TIMEOUT", 0.1)
        with pytest.raises(DatabaseUnavailable):
            await database.read(lambda db: db.fetchval("SELECT 1"))
        monkeypatch.undo()
        free.set()
        pids = await asyncio.gather(*holding)
        assert await database.read(lambda db: db.fetchval("SELECT pg_backend_pid()")) in pids


async def test_what_is_done_is_told_where_the_database_is_lost_for_what_comes_after(
    postgres: Postgres, url: str
) -> None:
    """A group whose data were refused is done again one by one, and lost on the way."""
    bad = key(1)._replace(name="environments/\0")

    def change(current: Record | None, revision: int) -> Outcome:
        end(postgres, "writer")
        return put(key(2))(current, revision)

    async with PostgresStore.open(url) as store:
        answers = await asyncio.gather(
            store.write(key(0), put(key(0))),
            store.write(bad, put(bad)),
            store.write(key(2), change),
            store.write(key(3), put(key(3))),
            return_exceptions=True,
        )
        assert answers[0] == b"1"
        assert [isinstance(each, DatabaseUnavailable) for each in answers[1:]] == [
            False,
            True,
            True,
        ]
        assert await store.span() == Span(0, 1)
