"""What there is of one driver, as its records and whoever makes its sandboxes tell.

Records are read in a thread: there may be many.
"""

import asyncio
from collections.abc import Collection

from services.provider.driver import Observation
from services.provider.drivers import stopping
from services.provider.drivers.making import Maker
from services.provider.drivers.own import Own
from services.provider.drivers.records import Records


class Seeing:
    """`unclaimed`: whether what has no record, and no sandbox, counts as this driver's."""

    def __init__(self, maker: Maker, records: Records, own: Own, *, unclaimed: bool) -> None:
        self._maker = maker
        self._records = records
        self._own = own
        self._unclaimed = unclaimed

    async def everything(self) -> tuple[Observation, ...]:
        """In the order of uids."""
        async with self._maker.connected() as launcher:
            running = {status.uid: status for status in await launcher.list()}
            node = (await launcher.facts()).node

        def observed() -> tuple[Observation, ...]:
            uids = sorted({*self._records.uids(), *(uid for uid in running if len(uid) == 16)})
            found = ((uid, self._records.read(uid)) for uid in uids)
            return tuple(
                self._own.observe(uid, each, running.get(uid), node)
                for uid, each in found
                if (uid in running or self._unclaimed if each is None else self._own.is_ours(each))
            )

        return await asyncio.to_thread(observed)

    async def running(self, tenant: str) -> set[str]:
        """Those of a tenant that have a sandbox."""
        async with self._maker.connected() as launcher:
            uids = [each.uid for each in await launcher.list()]

        def ours() -> set[str]:
            records = map(self._records.read, uids)
            return {
                each.uid
                for each in records
                if each and each.tenant == tenant and self._own.is_ours(each)
            }

        return await asyncio.to_thread(ours)

    async def end_one(self, owner: int, uids: Collection[str]) -> bool:
        """End one of these in which nothing runs: see `stopping.end_one`."""
        async with self._maker.connected() as launcher:
            return await stopping.end_one(launcher, owner, uids)
