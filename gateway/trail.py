"""The audit log as the gateway writes it: no call waits for it, and none is left out."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Self

import grpc

from cove.registry.v1.audit_pb2 import AppendAuditEntriesRequest, AuditEntry
from cove.registry.v1.audit_pb2_grpc import AuditServiceStub
from gateway.spool import Spool, left
from gateway.tools import Tool
from servicekit.config import StartError
from servicekit.errors import ServiceError, Unavailable

_log = logging.getLogger(__name__)

_UNSENT: Final = 10_000
"""Entries that wait for the registry at most."""
_BATCH: Final = 500
_GATHER: Final = 0.2
"""Seconds in which entries gather, as each sending costs as much as a call does."""
_SEND_SECONDS: Final = 10.0
_FIRST_PAUSE: Final = 0.2
_LAST_PAUSE: Final = 5.0
_LOOK: Final = 30.0
"""Seconds between looks for what gateways left that are gone."""
_LAST_WORDS: Final = 2.0
_REWRITE: Final = 1 << 20
_ALIKE_SECONDS: Final = 1.0
_ALIKE: Final = 1000
"""Kinds of refused calls that are told apart within that time; others by their tenant alone."""


class Trail:
    """Takes entries at once; sends them together, and again while the registry is away.

    When too many wait, nothing that would leave one more is begun: an audit log with holes is
    none. What reads goes on.
    """

    def __init__(self, audit: Tool[AuditServiceStub], folder: Path) -> None:
        self._audit = audit
        self._folder = folder
        self._spool = Spool(folder)
        self._begun: dict[str, AuditEntry] = {}
        self._unsent: deque[AuditEntry] = deque()
        self._alike: dict[tuple[str, ...], AuditEntry | None] = {}
        self._more = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls, audit: Tool[AuditServiceStub], folder: Path) -> AsyncIterator[Self]:
        """On leaving, what waits is sent if the registry is there; else the next gateway does.

        Raises `StartError` where nothing can be written to the folder.
        """
        try:
            trail = cls(audit, folder)
        except OSError as error:
            raise StartError(f"{folder}: {error.strerror}; set COVE_RUNTIME") from None
        tasks = [asyncio.create_task(work()) for work in (trail._send, trail._adopt, trail._tell)]
        try:
            yield trail
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            trail._tell_alike()
            with suppress(ServiceError, grpc.aio.AioRpcError, TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    while trail._unsent:
                        await trail._send_some()
            trail._spool.close(empty=not (trail._unsent or trail._begun))

    @property
    def unsent(self) -> int:
        """Entries that the registry does not have yet."""
        return len(self._unsent)

    def began(self, entry: AuditEntry) -> None:
        """Raises `Unavailable` when the call must not be made, as nobody could tell of it."""
        if len(self._unsent) >= _UNSENT:
            raise Unavailable("the audit log cannot be written", service="registry")
        try:
            self._spool.began(entry)
        except OSError as error:
            _log.error("no entry of the audit log can be kept: %s", error.strerror)
            raise Unavailable("the audit log cannot be written", service="gateway") from None
        self._begun[entry.id] = entry

    def ended(self, entry: AuditEntry) -> None:
        """The entry of a call that began, as it ended."""
        self._begun.pop(entry.id, None)
        self._keep(entry)

    def refused(self, entry: AuditEntry) -> None:
        """The entry of a call that did not begin. Those that are alike are told together."""
        host = entry.source.rpartition(":")[0]
        key: tuple[str, ...] = (entry.tenant, entry.principal, host, entry.action, entry.code)
        if key not in self._alike and len(self._alike) >= _ALIKE:
            entry.principal = entry.source = entry.action = entry.resource = "several"
            key = (entry.tenant,)
        if key not in self._alike:
            self._alike[key] = None
            self._keep(entry)
        elif (before := self._alike[key]) is None:
            self._alike[key] = entry
        else:
            entry.count += before.count
            self._alike[key] = entry

    def _keep(self, entry: AuditEntry) -> None:
        try:
            self._spool.ended(entry)
        except OSError as error:  # It is sent all the same, unless this process dies before.
            _log.error("an entry of the audit log cannot be kept: %s", error.strerror)
        self._unsent.append(entry)
        self._more.set()

    async def _send(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await self._more.wait()
            self._more.clear()
            if len(self._unsent) < _BATCH:
                await asyncio.sleep(_GATHER)
            try:
                await self._send_some()
                pause = _FIRST_PAUSE
            except (ServiceError, grpc.aio.AioRpcError) as error:
                _log.warning("the audit log has to wait: %s", error)
                await asyncio.sleep(pause)
                pause = min(_LAST_PAUSE, pause * 2)
            if self._unsent:
                self._more.set()

    async def _send_some(self) -> None:
        batch = [self._unsent[index] for index in range(min(_BATCH, len(self._unsent)))]
        if not batch:
            return  # What came meanwhile went with the last one.
        await self._append(batch)
        for _ in batch:
            self._unsent.popleft()
        if self._spool.size > _REWRITE:
            with suppress(OSError):
                self._spool.rewrite(self._begun.values(), self._unsent)

    async def _append(self, entries: list[AuditEntry]) -> None:
        request = AppendAuditEntriesRequest(entries=entries)
        rpc = self._audit.rpc.AppendAuditEntries
        await self._audit.unary(rpc, request, timeout=_SEND_SECONDS)

    async def _adopt(self) -> None:
        """Send what gateways left that are gone."""
        while True:
            try:
                for found in left(self._folder):
                    entries = await asyncio.to_thread(found.entries)
                    for start in range(0, len(entries), _BATCH):
                        await self._append(entries[start : start + _BATCH])
                    found.remove()
            except (ServiceError, grpc.aio.AioRpcError, OSError) as error:
                _log.warning("what another gateway left of the audit log has to wait: %s", error)
            await asyncio.sleep(_LOOK)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_ALIKE_SECONDS)
            self._tell_alike()

    def _tell_alike(self) -> None:
        """What was refused since the first of its kind."""
        if len(self._unsent) >= _UNSENT:
            return  # They wait here, in what they have in common.
        alike, self._alike = self._alike, {}
        for entry in alike.values():
            if entry:
                self._keep(entry)
