"""gRPC face of the registry: name what is meant, hand it to the store, convert."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import Any, Final

from google.protobuf.message import DecodeError

from cove.registry.v1 import registry_pb2 as pb
from cove.registry.v1.audit_pb2 import AuditEntry
from cove.registry.v1.registry_pb2_grpc import RegistryServiceServicer
from servicekit import calls
from servicekit.errors import InvalidArgument
from servicekit.filters.filters import Filter
from servicekit.paging import PageTokens
from servicekit.status import Context
from services.registry import batch
from services.registry.feed import Event
from services.registry.fields import FIELDS, MAX_BYTES
from services.registry.lists import Listing, listing_order, page
from services.registry.requests import digest
from services.registry.rules import Rules
from services.registry.store import Change, Key, Place, RequestId, Store
from services.registry.trail import Entry
from services.registry.watch import Heartbeat, Present, SnapshotEnd, Told, watch

_ALL_TENANTS: Final = "-"
_DEFAULT_PAGE: Final = 100
_MAX_PAGE: Final = 1000
_TURN: Final = 64
_LONGEST_ENTRY: Final = 4096


class RegistryServicer(RegistryServiceServicer):
    def __init__(
        self, store: Store, rules: Rules, tokens: PageTokens, heartbeat: timedelta
    ) -> None:
        self._store = store
        self._rules = rules
        self._tokens = tokens
        self._heartbeat = heartbeat

    async def RegisterEnvironment(
        self, request: pb.RegisterEnvironmentRequest, context: Context
    ) -> pb.RegisterEnvironmentResponse:
        key = _key(f"environments/{request.environment_id or _new_id()}")
        creator = calls.current().identity.principal
        change = partial(self._rules.register, request, key, creator)
        answer = await self._store.write(key, change, _request_id(request), _entry())
        return pb.RegisterEnvironmentResponse.FromString(answer)

    async def DeregisterEnvironment(
        self, request: pb.DeregisterEnvironmentRequest, context: Context
    ) -> pb.DeregisterEnvironmentResponse:
        change = partial(self._rules.deregister, request)
        return pb.DeregisterEnvironmentResponse.FromString(await self._write(request, change))

    async def GetEnvironment(
        self, request: pb.GetEnvironmentRequest, context: Context
    ) -> pb.GetEnvironmentResponse:
        record = await self._store.get(_key(request.name))
        return pb.GetEnvironmentResponse(environment=_message(record.document))

    async def ListEnvironments(
        self, request: pb.ListEnvironmentsRequest, context: Context
    ) -> pb.ListEnvironmentsResponse:
        asked = self._tokens.page(request, default=_DEFAULT_PAGE, maximum=_MAX_PAGE)
        tenant = _tenant(request.tenant)
        listing = Listing(
            tenant=tenant,
            filter=Filter(request.filter, FIELDS, max_bytes=MAX_BYTES),
            states=frozenset(request.states),
            order=listing_order(request.order_by, all_tenants=tenant is None),
        )
        listed = await page(self._store, listing, _after(asked.after), asked.size)
        answer = pb.ListEnvironmentsResponse(page_size=asked.size)
        for number, document in enumerate(listed.documents, start=1):
            answer.environments.add().MergeFromString(document)
            if number % _TURN == 0:
                await asyncio.sleep(0)
        if listed.next:
            answer.next_page_token = self._tokens.next(request, after=_last(listed.next))
        return answer

    async def EnvironmentExists(
        self, request: pb.EnvironmentExistsRequest, context: Context
    ) -> pb.EnvironmentExistsResponse:
        exists = await self._store.exists(_key(request.name))
        return pb.EnvironmentExistsResponse(exists=exists)

    async def UpdateEnvironment(
        self, request: pb.UpdateEnvironmentRequest, context: Context
    ) -> pb.UpdateEnvironmentResponse:
        if not request.update_mask.paths:
            raise InvalidArgument("update_mask", "names no field")
        key = _key(request.environment.name)
        change = partial(self._rules.update, request)
        answer = await self._store.write(key, change, _request_id(request), _entry())
        return pb.UpdateEnvironmentResponse.FromString(answer)

    async def UpdateEnvironmentStatus(
        self, request: pb.UpdateEnvironmentStatusRequest, context: Context
    ) -> pb.UpdateEnvironmentStatusResponse:
        change = partial(self._rules.update_status, request)
        return pb.UpdateEnvironmentStatusResponse.FromString(await self._write(request, change))

    async def ClaimOperation(
        self, request: pb.ClaimOperationRequest, context: Context
    ) -> pb.ClaimOperationResponse:
        change = partial(self._rules.claim, request)
        return pb.ClaimOperationResponse.FromString(await self._write(request, change))

    async def RenewOperation(
        self, request: pb.RenewOperationRequest, context: Context
    ) -> pb.RenewOperationResponse:
        change = partial(self._rules.renew, request)
        answer = await self._store.write(_key(request.name), change)
        return pb.RenewOperationResponse.FromString(answer)

    async def ReleaseOperation(
        self, request: pb.ReleaseOperationRequest, context: Context
    ) -> pb.ReleaseOperationResponse:
        change = partial(self._rules.release, request)
        answer = await self._store.write(_key(request.name), change)
        return pb.ReleaseOperationResponse.FromString(answer)

    async def WatchEnvironments(
        self, request: pb.WatchEnvironmentsRequest, context: Context
    ) -> AsyncIterator[pb.WatchEnvironmentsResponse]:
        told = watch(
            self._store,
            _tenant(request.tenant),
            request.from_revision,
            self._heartbeat,
            Filter(request.filter, FIELDS, max_bytes=MAX_BYTES),
            changes_only=request.changes_only,
        )
        async with aclosing(told):
            async for each in told:
                yield _event(each)

    async def BatchUpdateEnvironments(
        self, request: pb.BatchUpdateEnvironmentsRequest, context: Context
    ) -> pb.BatchUpdateEnvironmentsResponse:
        tenant = calls.current().identity.tenant
        writes = batch.writes(request, self._rules, tenant)
        answer = await self._store.write_all(writes, batch.answer, _request_id(request))
        return pb.BatchUpdateEnvironmentsResponse.FromString(answer)

    async def _write(self, request: Any, change: Change) -> bytes:
        key = _key(request.name)
        return await self._store.write(key, change, _request_id(request), _entry())


def _key(name: str) -> Key:
    return Key(calls.current().identity.tenant, name)


def _tenant(asked: str) -> str | None:
    return None if asked == _ALL_TENANTS else calls.current().identity.tenant


def _last(place: Place) -> str:
    """A place in a list as a page token has it."""
    return f"{place.name} {place.tenant} {place.time}"


def _after(last: str) -> Place | None:
    if not last:
        return None
    name, _, rest = last.partition(" ")
    tenant, _, time = rest.partition(" ")
    return Place(tenant, name, int(time or 0))


def _request_id(request: Any) -> RequestId | None:
    if not request.request_id:
        return None
    identity = calls.current().identity
    rpc = request.DESCRIPTOR.name
    return RequestId(identity.tenant, identity.principal, rpc, request.request_id, digest(request))


def _entry() -> Entry | None:
    """Of the audit log, if the call has one. Raises `InvalidArgument`."""
    if not (data := calls.current().entry):
        return None
    if len(data) > _LONGEST_ENTRY:
        raise InvalidArgument(calls.ENTRY_KEY, "too long")
    try:
        entry = Entry.of(AuditEntry.FromString(data))
    except (DecodeError, ValueError):
        raise InvalidArgument(calls.ENTRY_KEY, "not an entry of the audit log") from None
    if not (entry.id and entry.action and entry.code):
        raise InvalidArgument(calls.ENTRY_KEY, "has no id, no action or no code")
    return entry


def _new_id() -> str:
    return base64.b32encode(os.urandom(5)).decode().lower()


def _message(document: bytes) -> pb.Environment:
    return pb.Environment.FromString(document)


def _event(told: Told) -> pb.WatchEnvironmentsResponse:
    match told:
        case Present(record):
            return pb.WatchEnvironmentsResponse(snapshot=_message(record.document))
        case SnapshotEnd(revision):
            end = pb.WatchEnvironmentsResponse.SnapshotEnd(revision=revision)
            return pb.WatchEnvironmentsResponse(snapshot_end=end)
        case Heartbeat(revision):
            beat = pb.WatchEnvironmentsResponse.Heartbeat(revision=revision)
            return pb.WatchEnvironmentsResponse(heartbeat=beat)
        case Event():
            return _changed(told)


def _changed(event: Event) -> pb.WatchEnvironmentsResponse:
    if event.document is not None:
        return pb.WatchEnvironmentsResponse(put=_message(event.document))
    gone = pb.WatchEnvironmentsResponse.Delete(
        name=event.name, uid=event.uid, tenant=event.tenant, revision=event.revision
    )
    return pb.WatchEnvironmentsResponse(delete=gone)
