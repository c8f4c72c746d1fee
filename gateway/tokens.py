"""Tokens as callers ask for them: their secrets are made here, and leave nothing behind."""

from collections.abc import Callable, Sequence

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1 import access_pb2
from gateway import names
from gateway.errors import WorkspaceNotFound
from gateway.identity import secret
from gateway.records import Records
from gateway.tools import Tools, retold
from servicekit import calls
from servicekit.status import reason


class Tokens:
    """`revoked` is told of each, by its tenant and its name."""

    def __init__(self, tools: Tools, records: Records, revoked: Callable[[str, str], None]) -> None:
        self._access = tools.access
        self._rpc = tools.access.rpc
        self._records = records
        self._revoked = revoked

    async def create(self, request: pb.CreateTokenRequest) -> pb.CreateTokenResponse:
        """Raises `WorkspaceNotFound`, and what the registry says."""
        given, made = request.token, secret.new()
        token = access_pb2.Token(
            role=given.role, workspace=given.workspace, description=given.description
        )
        if given.HasField("ttl"):
            token.ttl.CopyFrom(given.ttl)
        if given.workspace:
            token.workspace_uid = (await self._records.get(given.workspace)).uid
        asked = access_pb2.CreateTokenRequest(
            token_id=names.token_id(request.token_id, request.request_id),
            token=token,
            hash=secret.hash_of(made),
            request_id=names.derived(request.request_id, "CreateToken"),
        )
        try:
            answer = await self._access.unary(self._rpc.CreateToken, asked)
        except grpc.aio.AioRpcError as error:
            if reason(error) == ErrorReason.ERROR_REASON_ENVIRONMENT_NOT_FOUND:
                raise WorkspaceNotFound(given.workspace) from None
            raise _retold(error, asked.request_id, request.request_id) from None
        return pb.CreateTokenResponse(token=answer.token, secret=made)

    async def list(self, request: pb.ListTokensRequest) -> pb.ListTokensResponse:
        asked = access_pb2.ListTokensRequest(
            page_size=request.page_size,
            page_token=request.page_token,
            show_ended=request.show_ended,
        )
        found = await self._access.unary(self._rpc.ListTokens, asked)
        return pb.ListTokensResponse(
            tokens=found.tokens, next_page_token=found.next_page_token, page_size=found.page_size
        )

    async def revoke(self, request: pb.RevokeTokenRequest) -> pb.RevokeTokenResponse:
        asked = access_pb2.RevokeTokenRequest(
            name=request.name,
            etag=request.etag,
            request_id=names.derived(request.request_id, "RevokeToken"),
        )
        try:
            answer = await self._access.unary(self._rpc.RevokeToken, asked)
        except grpc.aio.AioRpcError as error:
            raise _retold(error, asked.request_id, request.request_id) from None
        self._revoked(calls.current().identity.tenant, request.name)
        return pb.RevokeTokenResponse(token=answer.token)


class LookUp:
    """See `gateway.identity.bearer.Registry`."""

    def __init__(self, tools: Tools) -> None:
        self._access = tools.access

    async def look_up(
        self, hashes: Sequence[bytes], timeout: float
    ) -> access_pb2.LookUpTokensResponse:
        request = access_pb2.LookUpTokensRequest(hashes=hashes)
        return await self._access.unary(self._access.rpc.LookUpTokens, request, timeout=timeout)


def _retold(error: grpc.aio.AioRpcError, sent: str, given: str) -> grpc.aio.AioRpcError:
    return retold(error, words={sent: given} if given else {})
