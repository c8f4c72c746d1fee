"""How many commands each tenant runs on this node, and that it is not more than it may."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from servicekit.quota import QuotaExceeded
from services.executor.keeping import Keeper

_RETRY: Final = timedelta(seconds=1)


class Tenants:
    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._starting: Counter[str] = Counter()

    async def running(self, tenant: str) -> int:
        """Those that have not ended, and those that are just starting."""
        await self._keeper.known.wait()
        return self._running(tenant)

    async def known(self) -> None:
        """Return when what earlier executors started is known."""
        await self._keeper.known.wait()

    @contextmanager
    def place(self, tenant: str, limit: int) -> Iterator[None]:
        """Count a command that is being started. A limit of 0 is none.

        Nothing is waited for between looking and counting, so that the limit is exact. Raises
        `QuotaExceeded`.
        """
        if limit and (running := self._running(tenant)) >= limit:
            raise QuotaExceeded(tenant, "executions", limit, running, retry_after=_RETRY)
        self._starting[tenant] += 1
        try:
            yield
        finally:
            self._starting[tenant] -= 1
            if not self._starting[tenant]:
                del self._starting[tenant]

    def _running(self, tenant: str) -> int:
        kept = sum(1 for each in self._keeper.running() if each.tenant == tenant)
        return kept + self._starting[tenant]
