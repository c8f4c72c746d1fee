"""Brings a PostgreSQL database to the newest schema."""

from typing import Final

from services.registry.migrate import migrations, missing, nanoseconds
from services.registry.postgres.database import Connection

# Of all registries on one database. Any number would do that nobody else takes.
_LOCK: Final = 0x636F7665
_TIMES: Final = 2
_FIELDS: Final = ("create_time", "update_time")
_CHUNK: Final = 500
_PATIENCE: Final = "120s"


async def migrate(db: Connection) -> None:
    """Apply what is missing, all or nothing; registries that start together do it in turn.

    Raises `StartError` when the database is newer than this code.
    """
    async with db.transaction():
        await lock(db)
        await db.execute("CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY)")
        applied = [row[0] for row in await db.fetch("SELECT version FROM migration")]
        for number, script in missing(migrations("postgres"), applied):
            await db.execute(script, timeout=3600)
            if number == _TIMES:
                await _fill_times(db)
            await db.execute("INSERT INTO migration VALUES ($1)", number)


async def lock(db: Connection) -> None:
    """Until the end of the transaction nobody else makes or changes the schema."""
    await db.execute(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
    await db.execute(f"SELECT pg_advisory_xact_lock({_LOCK})", timeout=150)


async def _fill_times(db: Connection) -> None:
    """Give records of before their times, a part of them at a time."""
    after = ""
    while True:
        rows = await db.fetch(
            "SELECT uid, document FROM environment WHERE uid > $1 ORDER BY uid LIMIT $2",
            after,
            _CHUNK,
        )
        if not rows:
            return
        after = rows[-1][0]
        times = [[nanoseconds(row[1], each) for row in rows] for each in _FIELDS]
        await db.execute(
            "UPDATE environment e SET create_time = t.created, update_time = t.updated"
            " FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS t (uid, created, updated)"
            " WHERE e.uid = t.uid",
            [row[0] for row in rows],
            *times,
        )
