"""Durable writes of the registry's stores, in process: many at once against one commit a write.

Each store is compared with itself, on the disk of the temporary folder, `fsync` on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from benchmarks.measure import Action, interleaved, report
from benchmarks.suite import Suite
from services.registry.postgres.store import PostgresStore
from services.registry.sqlite import SqliteStore
from services.registry.store import Change, Key, Outcome, Record, Store
from tests.registry.postgres import binaries, running

_WRITES: Final = 256
_AT_ONCE: Final = 32
_DOCUMENT: Final = bytes(range(256)) * 4
_ALONE: Final = "one commit a write"

_Write: TypeAlias = Callable[[], Awaitable[object]]


async def run(_suite: Suite, folder: Path) -> None:
    async with SqliteStore.open(folder / "db") as sqlite:
        await _compare("SQLite", sqlite)
    try:
        binaries()
    except pytest.skip.Exception as reason:
        print(f"\nregistry on PostgreSQL: {reason}")
        return
    with running(fsync=True) as server:
        async with PostgresStore.open(server.fresh()) as postgres:
            await _compare("PostgreSQL", postgres)


async def _compare(name: str, store: Store) -> None:
    numbers = count()

    async def write() -> None:
        key = Key("bench", f"environments/e{next(numbers)}")
        await store.write(key, _put(key))

    actions: dict[str, Action] = {
        _ALONE: lambda: _drive(write, 1),
        f"{_AT_ONCE} at once": lambda: _drive(write, _AT_ONCE),
    }
    medians = await interleaved(actions, rounds=7, warmup=1)
    report(f"registry on {name}: {_WRITES} durable writes, in process", medians, [_ALONE])


async def _drive(write: _Write, at_once: int) -> None:
    left = iter(range(_WRITES))

    async def writer() -> None:
        for _ in left:
            await write()

    await asyncio.gather(*(writer() for _ in range(at_once)))


def _put(key: Key) -> Change:
    def change(_: Record | None, revision: int) -> Outcome:
        record = Record(*key, f"uid of {key.name}", 1, 1, 0, 0, revision, _DOCUMENT)
        return Outcome(response=b"", put=record)

    return change
