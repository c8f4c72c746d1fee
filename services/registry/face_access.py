"""gRPC face of the quotas, of the tokens, and of the audit log."""

from functools import partial
from typing import Any, Final

from cove.registry.v1 import access_pb2 as pb
from cove.registry.v1 import audit_pb2
from cove.registry.v1.access_pb2_grpc import AccessServiceServicer
from cove.registry.v1.audit_pb2_grpc import AuditServiceServicer
from servicekit import calls
from servicekit.paging import PageTokens
from servicekit.quota import Limits
from servicekit.status import Context
from services.registry.quotas import Quotas, message, updated
from services.registry.requests import digest
from services.registry.store import RequestId
from services.registry.tokens import NAMES, Tokens, draft, revoked
from services.registry.tokens import message as token_message
from services.registry.trail import Entry, Place, Trail, Wanted, each_once, moment

_DEFAULT_PAGE: Final = 100
_MAX_PAGE: Final = 1000


class AccessServicer(AccessServiceServicer):
    """`limits` are those of a tenant that has none of its own."""

    def __init__(self, quotas: Quotas, tokens: Tokens, pages: PageTokens, limits: Limits) -> None:
        self._quotas = quotas
        self._tokens = tokens
        self._pages = pages
        self._limits = limits

    async def GetQuota(self, request: pb.GetQuotaRequest, context: Context) -> pb.GetQuotaResponse:
        quota = await self._quotas.get(_tenant(request.tenant))
        return pb.GetQuotaResponse(quota=message(quota, self._limits))

    async def UpdateQuota(
        self, request: pb.UpdateQuotaRequest, context: Context
    ) -> pb.UpdateQuotaResponse:
        change = partial(updated, request, self._limits)
        answer = await self._quotas.update(_tenant(request.tenant), change, _request_id(request))
        return pb.UpdateQuotaResponse.FromString(answer)

    async def ListQuotas(
        self, request: pb.ListQuotasRequest, context: Context
    ) -> pb.ListQuotasResponse:
        asked = self._pages.page(request, default=_DEFAULT_PAGE, maximum=_MAX_PAGE)
        found = await self._quotas.page(asked.after, asked.size + 1)
        shown = found[: asked.size]
        more = len(found) > asked.size
        return pb.ListQuotasResponse(
            quotas=[message(each, self._limits) for each in shown],
            next_page_token=self._pages.next(request, after=shown[-1].tenant) if more else "",
            page_size=asked.size,
        )

    async def RecountQuotas(
        self, request: pb.RecountQuotasRequest, context: Context
    ) -> pb.RecountQuotasResponse:
        wrong = await self._quotas.recount(dry_run=request.dry_run)
        return pb.RecountQuotasResponse(
            corrections=[
                pb.RecountQuotasResponse.Correction(
                    tenant=each.tenant, counted=each.counted, found=each.found
                )
                for each in wrong
            ]
        )

    async def CreateToken(
        self, request: pb.CreateTokenRequest, context: Context
    ) -> pb.CreateTokenResponse:
        identity = calls.current().identity
        asked = draft(request, identity.tenant, identity.principal)
        request.ClearField("hash")  # Each retry has one of its own.
        answer = await self._tokens.create(asked, _request_id(request))
        return pb.CreateTokenResponse.FromString(answer)

    async def ListTokens(
        self, request: pb.ListTokensRequest, context: Context
    ) -> pb.ListTokensResponse:
        asked = self._pages.page(request, default=_DEFAULT_PAGE, maximum=_MAX_PAGE)
        tenant = calls.current().identity.tenant
        found = await self._tokens.page(
            tenant, asked.after, asked.size + 1, ended=request.show_ended
        )
        shown = found[: asked.size]
        more = len(found) > asked.size
        return pb.ListTokensResponse(
            tokens=[token_message(each) for each in shown],
            next_page_token=self._pages.next(request, after=shown[-1].id) if more else "",
            page_size=asked.size,
        )

    async def RevokeToken(
        self, request: pb.RevokeTokenRequest, context: Context
    ) -> pb.RevokeTokenResponse:
        tenant, id_ = calls.current().identity.tenant, request.name.removeprefix(NAMES)
        change = partial(revoked, request)
        answer = await self._tokens.change(tenant, id_, change, _request_id(request))
        return pb.RevokeTokenResponse.FromString(answer)

    async def LookUpTokens(
        self, request: pb.LookUpTokensRequest, context: Context
    ) -> pb.LookUpTokensResponse:
        answer = pb.LookUpTokensResponse()
        for each in await self._tokens.valid(request.hashes):
            found = answer.found.add(hash=each.hash, token=token_message(each.token))
            found.remaining.FromNanoseconds(each.remaining)
        return answer


class AuditServicer(AuditServiceServicer):
    def __init__(self, trail: Trail, tokens: PageTokens) -> None:
        self._trail = trail
        self._tokens = tokens

    async def AppendAuditEntries(
        self, request: audit_pb2.AppendAuditEntriesRequest, context: Context
    ) -> audit_pb2.AppendAuditEntriesResponse:
        entries = each_once(map(Entry.of, request.entries))
        appended = await self._trail.append(entries)
        return audit_pb2.AppendAuditEntriesResponse(appended=appended)

    async def ListAuditEntries(
        self, request: audit_pb2.ListAuditEntriesRequest, context: Context
    ) -> audit_pb2.ListAuditEntriesResponse:
        asked = self._tokens.page(request, default=_DEFAULT_PAGE, maximum=_MAX_PAGE)
        tenant = calls.current().identity.tenant
        wanted = Wanted(
            tenant=tenant,
            start=moment(request.start_time),
            # No entry is of before 1970; 0 would be no end.
            end=(moment(request.end_time) or -1) if request.HasField("end_time") else 0,
            principal=request.principal,
            resource=request.resource,
            action=request.action,
            code=request.code,
        )
        removed = await self._trail.removed(tenant)
        entries, more = await self._trail.page(wanted, _place(asked.after), asked.size)
        answer = audit_pb2.ListAuditEntriesResponse(
            entries=[audit_pb2.AuditEntry.FromString(each.document) for each in entries],
            next_page_token=self._tokens.next(request, after=f"{more.time} {more.id}")
            if more
            else "",
            page_size=asked.size,
            removed=removed.entries,
        )
        if removed.until:
            answer.removed_until.FromNanoseconds(removed.until)
        return answer


def _tenant(asked: str) -> str:
    return asked or calls.current().identity.tenant


def _place(after: str) -> Place | None:
    """The place in the list that a page token tells of."""
    if not after:
        return None
    time, _, id_ = after.partition(" ")
    return Place(int(time), id_)


def _request_id(request: Any) -> RequestId | None:
    if not request.request_id:
        return None
    identity = calls.current().identity
    rpc = request.DESCRIPTOR.name
    return RequestId(identity.tenant, identity.principal, rpc, request.request_id, digest(request))
