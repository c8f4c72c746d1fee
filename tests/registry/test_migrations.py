"""A database of each earlier schema is brought to this one, with all that is in it."""

import sqlite3
from importlib.resources import files
from pathlib import Path
from typing import Final

from cove.registry.v1.registry_pb2 import Environment
from services.registry.sqlite import SqliteStore
from services.registry.store import Key, Order, Place
from tests.registry.caller import Clock

_TIMES: Final = Order(time="create_time", descending=True)


async def test_records_of_before_the_columns_for_times_have_them(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "r" / "db"
    path.parent.mkdir(mode=0o700)
    db = sqlite3.connect(path)
    db.executescript((files("services.registry") / "migrations/0001_environments.sql").read_text())
    db.execute("CREATE TABLE migration (version INTEGER PRIMARY KEY) STRICT")
    db.execute("INSERT INTO migration VALUES (1)")
    for number, name in enumerate(("a", "b", "c"), start=1):
        environment = Environment(name=f"environments/{name}", tenant="acme", uid=name)
        environment.create_time.FromNanoseconds(number * 10**9)
        environment.update_time.FromNanoseconds(number * 10**9 + 5)
        document = environment.SerializeToString()
        row = ("acme", environment.name, name, 2, 1, 0, 0, number, document)
        db.execute("INSERT INTO environment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        change = (number, clock.now, "acme", environment.name, name, document)
        db.execute("INSERT INTO change VALUES (?, ?, ?, ?, ?, ?)", change)
    db.execute("UPDATE counter SET latest = 3")
    db.commit()
    db.close()
    async with SqliteStore.open(path, now=clock) as store:
        page = await store.page("acme", None, order=_TIMES, limit=2, max_bytes=1 << 20)
        assert [record.name[-1] for record in page.records] == ["c", "b"]
        assert [record.update_time for record in page.records] == [3 * 10**9 + 5, 2 * 10**9 + 5]
        after = Place("acme", "environments/b", page.records[-1].create_time)
        page = await store.page("acme", after, order=_TIMES, limit=2, max_bytes=1 << 20)
        assert [record.name[-1] for record in page.records] == ["a"]
        assert [(event.previous, event.before) for event in await store.history(0, 9)] == [
            (-1, None)
        ] * 3
        assert (await store.get(Key("acme", "environments/a"))).create_time == 10**9
