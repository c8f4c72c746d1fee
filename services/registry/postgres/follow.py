"""Keeps a feed at the end of what all registries on the database have committed.

Every commit notifies; the notification only says that there is more. What there is comes
from the `change` table, so that one which is lost, or told twice, does no harm.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from services.registry.feed import MAX_READ, Event, Feed
from services.registry.postgres.database import CALL_TIMEOUT, Connection, Database, is_away
from services.registry.selecting import HISTORY

_log = logging.getLogger(__name__)

# The sizes are added up there, so that no more than is read at once comes here.
SINCE: Final = (
    "SELECT revision, tenant, name, uid, document, previous, replaced FROM (SELECT *,"  # noqa: S608
    " sum(coalesce(octet_length(document), 0) + coalesce(octet_length(replaced), 0))"
    " OVER (ORDER BY revision) AS bytes, row_number() OVER (ORDER BY revision) AS place"
    f" FROM ({HISTORY} WHERE c.revision > $1 ORDER BY c.revision LIMIT $2) part) sized"
    f" WHERE place = 1 OR bytes <= {MAX_READ} ORDER BY revision"
)
SPAN: Final = "SELECT compacted, latest FROM counter"
_PAGE: Final = 256
# A connection that died without a sign is found out by this.
_CHECK: Final = 10.0
_BACKOFF: Final = (0.05, 0.1, 0.2, 0.5, 1.0)


class Follower:
    """Publishes to the feed, without gap or repeat, while the block of `following` runs."""

    def __init__(self, database: Database, channel: str, feed: Feed) -> None:
        self._database = database
        self._channel = channel
        self._feed = feed
        self._more = asyncio.Event()

    def own(self, events: Sequence[Event]) -> None:
        """Take what this registry has committed, unless something before it is still missing."""
        if not self._publish(events):
            self._more.set()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        listening = await self._listen()
        task = asyncio.create_task(self._run(listening))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self, db: Connection | None) -> None:
        failures = 0
        while True:
            try:
                db = db or await self._listen()
                failures = 0
                while True:
                    await self._catch_up(db)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_CHECK):
                            await self._more.wait()
            except Exception as error:
                if not failures:
                    _log.log(
                        logging.WARNING if is_away(error) else logging.ERROR,
                        "lost the notifications of the database, listening anew: %s: %s",
                        type(error).__name__,
                        error,
                    )
                await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
                failures += 1
            finally:
                if db:
                    db.terminate()
                db = None

    async def _listen(self) -> Connection:
        db = await self._database.connect("listener")
        db.add_termination_listener(lambda *_: self._more.set())
        await db.add_listener(self._channel, self._told)
        return db

    def _told(self, _db: Any, _pid: int, _channel: str, latest: object) -> None:
        if int(str(latest)) > self._feed.latest:
            self._more.set()

    async def _catch_up(self, db: Connection) -> None:
        """Publish what is in the table and not yet in the feed."""
        self._more.clear()
        while True:
            after = self._feed.latest
            rows = await db.fetch(SINCE, after, _PAGE, timeout=CALL_TIMEOUT)
            if not self._publish([Event(*row) for row in rows]):
                compacted, latest = await db.fetchrow(SPAN)
                if self._feed.latest < compacted:
                    _log.warning("fell behind the history that is kept, watchers begin anew")
                    self._feed.restart(latest)
            elif not rows:
                break
        compacted, latest = await db.fetchrow(SPAN)
        if latest < after:
            _log.error("the database has lost revisions: it had %s, has %s", after, latest)
            self._feed.restart(latest)

    def _publish(self, events: Sequence[Event]) -> bool:
        """Whether that leaves no gap. What the feed has already is left out."""
        fresh = [event for event in events if event.revision > self._feed.latest]
        if fresh and fresh[0].revision != self._feed.latest + 1:
            return False
        self._feed.publish(fresh)
        return True
