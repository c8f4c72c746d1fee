"""Whether an environment may be started: decided by the latest call, and kept in its record."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from services.provider.driver import Stopping
from services.provider.drivers.records import Record, Records


async def stop(
    records: Records,
    record: Record,
    revision: int,
    end: Callable[[], Awaitable[tuple[bool, timedelta]]],
) -> Stopping:
    """Forbid it, and have `end` end what runs, which tells as `Stopping` does. Hold its lock."""
    again = record.stopped and revision == record.stop_revision
    if revision <= record.stop_revision and not again:
        return Stopping(stopped=record.stopped, superseded=True)
    # First of all: what ends must not be started anew.
    stopped = replace(record, stopped=True, stop_revision=revision)
    await asyncio.to_thread(records.write, stopped)
    try:
        ended, quiet = await end()
    except BaseException:
        await asyncio.to_thread(records.write, record)
        raise
    if not ended:
        await asyncio.to_thread(records.write, replace(record, stopped=False))
    return Stopping(stopped=ended, quiet=quiet)


async def reopen(records: Records, record: Record, revision: int) -> bool:
    """Allow it; false when a later call has decided. Hold its lock."""
    if revision < record.stop_revision:
        return False
    opened = replace(record, stopped=False, stop_revision=revision)
    await asyncio.to_thread(records.write, opened)
    return True
