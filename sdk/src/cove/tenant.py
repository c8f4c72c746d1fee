"""What the caller's tenant may have, and who did what in it."""

from collections.abc import AsyncGenerator
from datetime import datetime

from google.protobuf.field_mask_pb2 import FieldMask

from cove.connection import Connection
from cove.connection import request_id as new_request_id
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import AccessServiceStub, AuditServiceStub
from cove.registry.v1.access_pb2 import Quota, QuotaLimits
from cove.registry.v1.audit_pb2 import AuditEntry


class Tenant:
    """The caller's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._access = AccessServiceStub(connection.channel)
        self._audit = AuditServiceStub(connection.channel)

    async def quota(self) -> Quota:
        """What it may have, `effective_limits`, where 0 is no limit; and what it has, `use`."""
        answer = await self._connection.unary(self._access.GetQuota, pb.GetQuotaRequest())
        return answer.quota

    async def set_quota(
        self,
        *,
        workspaces: int | None = None,
        active_environments: int | None = None,
        executions: int | None = None,
        disk_bytes: int | None = None,
        etag: str = "",
    ) -> Quota:
        """Set those that are given: 0 is the operator's default, -1 no limit.

        For administrators. Takes nothing away from who has more. Raises `Aborted` when the quota
        was changed since its `etag` was read.
        """
        given = {
            "workspaces": workspaces,
            "active_environments": active_environments,
            "executions": executions,
            "disk_bytes": disk_bytes,
        }
        limits = {name: value for name, value in given.items() if value is not None}
        request = pb.UpdateQuotaRequest(
            quota=Quota(limits=QuotaLimits(**limits), etag=etag),
            update_mask=FieldMask(paths=[f"limits.{name}" for name in limits]),
            request_id=new_request_id(),
        )
        return (await self._connection.unary(self._access.UpdateQuota, request)).quota

    async def audit(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        principal: str = "",
        resource: str = "",
        action: str = "",
        code: str = "",
    ) -> AsyncGenerator[AuditEntry, None]:
        """Who did what to which resource, and how it ended; the latest first.

        For administrators. `resource` is one with all that belongs to it, `action` an RPC such as
        `CreateWorkspace`, `code` a `google.rpc.Code` such as `PERMISSION_DENIED`.
        """
        request = pb.ListAuditEntriesRequest(
            principal=principal, resource=resource, action=action, code=code
        )
        if since:
            request.start_time.FromDatetime(since)
        if until:
            request.end_time.FromDatetime(until)
        while True:
            page = await self._connection.unary(self._audit.ListAuditEntries, request)
            for entry in page.entries:
                yield entry
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
