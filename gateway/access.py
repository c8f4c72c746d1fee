"""AccessService and AuditService: what the registry keeps, for the caller's own tenant."""

from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import AccessServiceServicer, AuditServiceServicer
from cove.registry.v1 import access_pb2, audit_pb2
from gateway.quotas import Quotas
from gateway.tokens import Tokens
from gateway.tools import Tools
from servicekit.status import Context

_LIMITS: Final = "limits."


class AccessServicer(AccessServiceServicer):
    def __init__(self, quotas: Quotas, tokens: Tokens) -> None:
        self._quotas = quotas
        self._tokens = tokens

    async def CreateToken(
        self, request: pb.CreateTokenRequest, context: Context
    ) -> pb.CreateTokenResponse:
        return await self._tokens.create(request)

    async def ListTokens(
        self, request: pb.ListTokensRequest, context: Context
    ) -> pb.ListTokensResponse:
        return await self._tokens.list(request)

    async def RevokeToken(
        self, request: pb.RevokeTokenRequest, context: Context
    ) -> pb.RevokeTokenResponse:
        return await self._tokens.revoke(request)

    async def GetQuota(self, request: pb.GetQuotaRequest, context: Context) -> pb.GetQuotaResponse:
        return pb.GetQuotaResponse(quota=await self._quotas.get())

    async def UpdateQuota(
        self, request: pb.UpdateQuotaRequest, context: Context
    ) -> pb.UpdateQuotaResponse:
        limits = request.quota.limits
        paths = list(request.update_mask.paths) or [
            _LIMITS + field.name for field, _ in limits.ListFields()
        ]
        if not paths:
            return pb.UpdateQuotaResponse(quota=await self._quotas.get())
        asked = access_pb2.UpdateQuotaRequest(
            quota=access_pb2.Quota(limits=limits, etag=request.quota.etag),
            update_mask=FieldMask(paths=paths),
            request_id=request.request_id,
        )
        return pb.UpdateQuotaResponse(quota=await self._quotas.update(asked))


class AuditServicer(AuditServiceServicer):
    def __init__(self, tools: Tools) -> None:
        self._audit = tools.audit

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Context
    ) -> pb.ListAuditEntriesResponse:
        asked = audit_pb2.ListAuditEntriesRequest(
            page_size=request.page_size,
            page_token=request.page_token,
            principal=request.principal,
            resource=request.resource,
            action=request.action,
            code=request.code,
        )
        for field in ("start_time", "end_time"):
            if request.HasField(field):
                getattr(asked, field).CopyFrom(getattr(request, field))
        found = await self._audit.unary(self._audit.rpc.ListAuditEntries, asked)
        answer = pb.ListAuditEntriesResponse(
            entries=found.entries,
            next_page_token=found.next_page_token,
            page_size=found.page_size,
            removed=found.removed,
        )
        if found.HasField("removed_until"):
            answer.removed_until.CopyFrom(found.removed_until)
        return answer
