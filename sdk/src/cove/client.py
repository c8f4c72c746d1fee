"""The async client of Cove. `cove.sync` has the same for code that is not async.

async with Client() as cove:
    async with await cove.workspaces.create("https://example.org/app.git", revision="main") as ws:
        result = await ws.execute("make", "test", timeout=600, check=True)
        print(result.text)
        await ws.commit("Make the tests pass")
        await ws.push()
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from cove.connection import Connection
from cove.endpoint import find
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import SourceServiceStub, WorkspaceServiceStub
from cove.health import check
from cove.tenant import Tenant
from cove.tokens import Tokens
from cove.workspaces import Workspaces

PATIENCE: Final = 30.0
"""Seconds for which a call is repeated while the gateway is away."""


class Client:
    """One connection to a gateway. Use it as an async context manager, or `close` it.

    `address` is `host:port`, `https://host:port` or `unix:/path`. Without arguments the gateway is
    found by COVE_ADDRESS and COVE_TOKEN, or by what `cove up` left in its state directory, `state`
    or COVE_STATE; `Unavailable` is raised when nothing runs on the one that is named. With
    `https://` it is checked by the authorities in COVE_CA_FILE, else by public ones, and shown the
    certificate in COVE_CERTIFICATE_FILE and COVE_KEY_FILE if there is one. It belongs to the event
    loop in which it is made.

    A call is repeated for `patience` seconds while the gateway is away (3 when it never
    answered), or has too much to do, which never does anything twice; then it raises
    `Unavailable` or `ResourceExhausted`. Every other failure is raised at once, as the
    subclass of `CoveError` that is named for its code.

    `acting_for` or COVE_TENANT is the tenant in which an operator acts; others may leave it out.
    """

    def __init__(
        self,
        address: str | None = None,
        token: str | None = None,
        *,
        state: Path | None = None,
        patience: float = PATIENCE,
        acting_for: str | None = None,
    ) -> None:
        endpoint = find(os.environ, address=address, token=token, state=state, tenant=acting_for)
        self._connection = Connection(endpoint, patience)
        self.workspaces = Workspaces(self._connection)
        self.tenant = Tenant(self._connection)
        self.tokens = Tokens(self._connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in progress are cancelled. May be done twice."""
        await self._connection.close()

    @property
    def address(self) -> str:
        """Where the gateway is."""
        return self._connection.endpoint.address

    async def capabilities(self) -> pb.GetCapabilitiesResponse:
        """What this installation can enforce and supports."""
        stub = WorkspaceServiceStub(self._connection.channel)
        return await self._connection.unary(stub.GetCapabilities, pb.GetCapabilitiesRequest())

    async def signing_key(self) -> pb.GetSigningKeyResponse:
        """The public key of the provenance that is signed there, as PEM.

        Keep it: what was signed is checked with a key that came another way than the signature.
        """
        stub = SourceServiceStub(self._connection.channel)
        return await self._connection.unary(stub.GetSigningKey, pb.GetSigningKeyRequest())

    async def health(self) -> Mapping[str, str]:
        """SERVING or what else each service says of itself, by full name.

        Those behind the gateway are asked where this user can reach them: on the machine of
        `cove up`, as the user who started it. One that does not answer is `UNREACHABLE`.
        """
        return await check(self._connection.endpoint)
