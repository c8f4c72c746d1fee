"""Brings a PostgreSQL database to the newest schema."""

from typing import Final

from services.registry.migrate import migrations, missing
from services.registry.postgres.database import Connection

# Of all registries on one database. Any number would do that nobody else takes.
_LOCK: Final = 0x636F7665
_PATIENCE: Final = "120s"


async def migrate(db: Connection) -> None:
    """Apply what is missing, all or nothing; registries that start together do it in turn.

    Raises `StartError` when the database is newer than this code.
    """
    async with db.transaction():
        await db.execute(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
        await db.execute(f"SELECT pg_advisory_xact_lock({_LOCK})", timeout=150)
        await db.execute("CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY)")
        applied = [row[0] for row in await db.fetch("SELECT version FROM migration")]
        for number, script in missing(migrations("postgres"), applied):
            await db.execute(script, timeout=3600)
            await db.execute("INSERT INTO migration VALUES ($1)", number)
