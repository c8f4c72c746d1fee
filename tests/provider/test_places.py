"""The bound of a tenant is one of its node, whatever its sandboxes stand on."""

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest

from servicekit.errors import Unavailable
from servicekit.quota import QuotaExceeded
from services.provider.driver import Spec, Worktree
from services.provider.drivers.records import Record
from services.provider.drivers.tenants import Places
from tests.agent.node import new_uid


def record() -> Record:
    return Record(
        uid=new_uid(),
        tenant="t",
        spec=Spec(),
        worktree=Worktree(),
        provision_time=datetime.now(UTC),
    )


class _Driver:
    """What a driver tells: those that run, or nothing."""

    def __init__(self, running: int) -> None:
        self.uids = [new_uid() for _ in range(running)]
        self.ended: list[Collection[str]] = []
        self.away = False

    async def running(self, _: str) -> list[str]:
        if self.away:
            raise Unavailable("away")
        return self.uids

    async def end_idle(self, uids: Collection[str]) -> bool:
        self.ended.append(uids)
        return False


async def test_those_of_all_drivers_count() -> None:
    places, one, other = Places(), _Driver(1), _Driver(1)
    places.share("one", one.running)
    places.share("other", other.running)
    async with places.place("one", record(), 3, one.end_idle):
        for name, driver in (("one", one), ("other", other)):
            with pytest.raises(QuotaExceeded):
                await _placed(places, name, driver, 3)
            # Only what is its own is it asked to end.
            assert driver.ended == [driver.uids]
        await _placed(places, "other", other, 4)
    await _placed(places, "other", other, 3)


async def test_what_does_not_answer_keeps_nobody_out() -> None:
    places, one, other = Places(), _Driver(1), _Driver(5)
    places.share("one", one.running)
    places.share("other", other.running)
    other.away = True
    await _placed(places, "one", one, 2)
    with pytest.raises(Unavailable):
        await _placed(places, "other", other, 2)


async def test_of_many_at_once_as_many_come_in_as_may() -> None:
    places, one, other = Places(), _Driver(0), _Driver(0)
    places.share("one", one.running)
    places.share("other", other.running)
    async with AsyncExitStack() as stack:
        asked = [
            stack.enter_async_context(places.place(name, record(), 4, driver.end_idle))
            for name, driver in (("one", one), ("other", other)) * 4
        ]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(each, QuotaExceeded) for each in found) == 4


async def _placed(places: Places, name: str, driver: _Driver, limit: int) -> None:
    async with places.place(name, record(), limit, driver.end_idle):
        pass
