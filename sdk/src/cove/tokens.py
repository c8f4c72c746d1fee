"""Tokens of the caller's tenant, and shares of one workspace. For administrators."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from cove.connection import Connection
from cove.connection import request_id as new_request_id
from cove.durations import duration_if
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import AccessServiceStub
from cove.options.v1.options_pb2 import Role
from cove.registry.v1.access_pb2 import Token

RoleName: TypeAlias = Literal["reader", "writer", "admin"]

_ROLES: Final = {
    "reader": Role.ROLE_READER,
    "writer": Role.ROLE_WRITER,
    "admin": Role.ROLE_ADMIN,
}
_WORKSPACES: Final = "workspaces/"
_TOKENS: Final = "tokens/"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made."""

    token: Token
    secret: str = field(repr=False)
    """What its owner shows. It cannot be had again."""


class Tokens:
    """All of the tenant."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = AccessServiceStub(connection.channel)

    async def create(
        self,
        role: RoleName = "writer",
        *,
        workspace: str = "",
        ttl: timedelta | float | None = None,
        description: str = "",
        id: str = "",  # noqa: A002 - the contract's word.
        request_id: str = "",
    ) -> NewToken:
        """Make one. With the id of a `workspace` it is a share: it reaches that one alone, and
        ends with it.

        `ttl` in seconds; without, a token is valid for 90 days and a share for 7. The server makes
        an `id` where none is given. Raises `AlreadyExists`, `NotFound`. With the same `request_id`
        the same token is found again, with another secret that is valid like the first.
        """
        token = Token(
            role=_ROLES[role],
            workspace=_WORKSPACES + workspace.removeprefix(_WORKSPACES) if workspace else "",
            description=description,
            ttl=duration_if(ttl),
        )
        request = pb.CreateTokenRequest(
            token_id=id, token=token, request_id=new_request_id(request_id)
        )
        made = await self._connection.unary(self._stub.CreateToken, request)
        return NewToken(made.token, made.secret)

    async def list(self, *, ended: bool = False) -> AsyncGenerator[Token, None]:
        """Those that are valid, in the order of their ids; with `ended` also what was revoked or
        has expired."""
        request = pb.ListTokensRequest(show_ended=ended)
        while True:
            page = await self._connection.unary(self._stub.ListTokens, request)
            for token in page.tokens:
                yield token
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def revoke(self, id: str, *, etag: str = "") -> Token:  # noqa: A002
        """End one for good, on every gateway within 5 s. Raises `NotFound`, and `Aborted` when it
        was changed since its `etag` was read."""
        request = pb.RevokeTokenRequest(
            name=_TOKENS + id.removeprefix(_TOKENS), etag=etag, request_id=new_request_id()
        )
        return (await self._connection.unary(self._stub.RevokeToken, request)).token
