"""What provider has on the node of the current call."""

from collections.abc import AsyncIterator
from typing import Final

from cove.provider.v1 import provider_pb2 as pb
from cove.provider.v1.provider_pb2_grpc import ProviderServiceStub
from gateway.tools import Tool

_PAGE: Final = 500
_SECONDS: Final = 30.0


async def provisioned(
    provider: Tool[ProviderServiceStub],
) -> AsyncIterator[pb.ListProvisionedResponse]:
    """Pages of it. What a driver has that does not answer is in none of them; its name is."""
    request = pb.ListProvisionedRequest(page_size=_PAGE, return_partial_success=True)
    while True:
        page = await provider.unary(provider.rpc.ListProvisioned, request, timeout=_SECONDS)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
