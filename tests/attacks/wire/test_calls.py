"""Messages at random to every RPC: each is answered with a reason, and nothing is left behind."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import WorkspaceServiceStub
from tests.attacks.wire.messages import Drawer
from tests.attacks.wire.watched import Watched
from tests.servicekit.failing import Failure

EXAMPLES: Final = int(os.environ.get("COVE_WIRE_EXAMPLES", "200"))
FEW: Final = 3
SECONDS: Final = 3.0
NAME: Final = "workspaces/attacked"
_OWN: Final = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""What this client says by itself."""
_LAST: Final = "AccessService"
"""Whose RPCs may leave the tenant without a quota, and so no deep call after them."""


def _rpcs() -> list[MethodDescriptor]:
    services = pb.DESCRIPTOR.services_by_name.values()
    found = [method for service in services for method in service.methods]
    return sorted(found, key=lambda each: each.containing_service.name == _LAST)


RPCS: Final = _rpcs()
of_each = pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: rpc.name)


@pytest.fixture
def channel(target: Watched) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(target.suite.grpc) as opened:
        request = pb.CreateWorkspaceRequest(workspace_id=NAME.split("/")[1])
        request.workspace.spec.repository = target.repository
        stub: Any = WorkspaceServiceStub(opened)  # type: ignore[arg-type]
        with suppress(grpc.RpcError):  # It is there still, or there is no room any more.
            stub.CreateWorkspace(request, metadata=shown(target))
        yield opened


def shown(target: Watched) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {target.suite.token}"),)


def called(
    channel: grpc.Channel, rpc: MethodDescriptor, sent: list[bytes], metadata: Any
) -> grpc.RpcError | None:
    """How a call with these requests failed; None: it did not."""
    given = "stream" if rpc.client_streaming else "unary"
    told = "stream" if rpc.server_streaming else "unary"
    method: Any = getattr(channel, f"{given}_{told}")(
        f"/{rpc.containing_service.full_name}/{rpc.name}"
    )
    request = iter(sent) if rpc.client_streaming else sent[0]
    try:
        answer = method(request, timeout=SECONDS, metadata=metadata)
        if rpc.server_streaming:
            for _, _ in zip(range(20), answer, strict=False):
                pass
            answer.cancel()
    except grpc.RpcError as error:
        return error
    return None


def attack(target: Watched, channel: grpc.Channel, rpc: MethodDescriptor, examples: int) -> None:
    drawer = Drawer([NAME, f"{NAME}/executions/some", "some", target.repository])
    requests = drawer.data(rpc.input_type)
    sent = st.lists(requests, min_size=1, max_size=4 if rpc.client_streaming else 1)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples == FEW,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(sent)
    def one(sent: list[bytes]) -> None:
        failed: Any = called(channel, rpc, sent, shown(target))
        if failed is None or failed.code() in _OWN:
            return
        failure = Failure(failed)
        assert failure.reason, f"{failed.code()} without a reason: {failure.text}: {sent!r}"
        assert failure.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), (
            f"{failure.text} {failure.info}: {sent!r}"
        )

    with target.unharmed():
        one()


@of_each
def test_every_rpc_answers_what_it_cannot_do(
    target: Watched, channel: grpc.Channel, rpc: MethodDescriptor
) -> None:
    attack(target, channel, rpc, FEW)


@pytest.mark.long
@pytest.mark.timeout(1200)
@of_each
def test_every_rpc_answers_whatever_comes(
    target: Watched, channel: grpc.Channel, rpc: MethodDescriptor
) -> None:
    attack(target, channel, rpc, EXAMPLES)
