"""One call: its retries, its deadline, its identity, and how its failure is told."""

import time
import traceback

import grpc
import pytest

from cove import status
from cove.client import Client
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.result import CommandFailed
from tests.sdk.double import Gateway, broken_off, told


async def test_a_retry_has_the_request_id_of_the_first_try(cove: Client, gateway: Gateway) -> None:
    gateway.failures = [broken_off, broken_off]
    workspace = await cove.workspaces.create("file:///r", id="demo")
    assert workspace.id == "demo"
    assert len(gateway.requests) == 3
    assert gateway.requests[0].request_id
    assert all(each == gateway.requests[0] for each in gateway.requests)
    assert len({each["x-request-id"] for each in gateway.metadata}) == 1


@pytest.mark.parametrize(
    "reason", [ErrorReason.ERROR_REASON_RATE_LIMITED, ErrorReason.ERROR_REASON_OVERLOADED]
)
async def test_what_was_refused_early_is_made_again(
    cove: Client, gateway: Gateway, reason: ErrorReason.ValueType
) -> None:
    gateway.failures = [told(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)] * 2
    await cove.workspaces.create("file:///r", id="demo")
    assert len(gateway.requests) == 3
    assert gateway.requests[0] == gateway.requests[2]


async def test_two_calls_have_two_request_ids(cove: Client, gateway: Gateway) -> None:
    await cove.workspaces.create(id="a")
    await cove.workspaces.create(id="a")
    assert gateway.requests[0].request_id != gateway.requests[1].request_id


async def test_a_failure_says_all_that_the_gateway_said(cove: Client, gateway: Gateway) -> None:
    reason = ErrorReason.ERROR_REASON_WORKSPACE_NOT_FOUND
    gateway.failures = [told(grpc.StatusCode.NOT_FOUND, reason, name="workspaces/none")]
    with pytest.raises(status.NotFound) as caught:
        await cove.workspaces.get("none")
    error = caught.value
    assert error.code is grpc.StatusCode.NOT_FOUND
    assert error.reason == "ERROR_REASON_WORKSPACE_NOT_FOUND"
    assert error.message == "it does not do"
    assert error.remedy == "Try another."
    assert error.metadata == {"name": "workspaces/none"}
    assert error.fields == (status.Violation("workspace_id", "not a label"),)
    assert len(gateway.requests) == 1
    shown = "".join(traceback.format_exception(error))
    assert shown.endswith(
        "NotFound: it does not do\n"
        "ERROR_REASON_WORKSPACE_NOT_FOUND name=workspaces/none\n"
        "Try another.\n"
    )
    assert "AioRpcError" not in shown


async def test_a_reason_newer_than_this_client_is_kept(cove: Client, gateway: Gateway) -> None:
    gateway.failures = [told(grpc.StatusCode.ABORTED, "ERROR_REASON_OF_TOMORROW")]
    with pytest.raises(status.Aborted) as caught:
        await cove.workspaces.get("demo")
    assert caught.value.reason == "ERROR_REASON_OF_TOMORROW"


@pytest.mark.parametrize("kind", status.CoveError.__subclasses__())
async def test_each_code_has_its_kind(
    cove: Client, gateway: Gateway, kind: type[status.CoveError]
) -> None:
    reason = ErrorReason.ERROR_REASON_INTERNAL
    gateway.failures = [told(kind.code, reason)] * (1000 if kind is status.Unavailable else 1)
    with pytest.raises(kind):
        async with Client(cove.address, patience=0.1) as impatient:
            await impatient.workspaces.get("demo")


async def test_nobody_there_is_told_soon_and_with_a_remedy(address: str) -> None:
    began = time.monotonic()
    async with Client(address, patience=30) as client:
        with pytest.raises(status.Unavailable, match=address) as caught:
            await client.workspaces.get("demo")
    assert "cove up" in caught.value.remedy
    assert time.monotonic() - began < 30


async def test_the_token_is_shown_and_never_printed(cove: Client, gateway: Gateway) -> None:
    await cove.workspaces.get("demo")
    assert gateway.metadata[0]["authorization"] == "Bearer secret"
    assert "secret" not in repr(cove._connection.endpoint)  # noqa: SLF001


async def test_a_call_waits_a_little_longer_than_the_server_works(
    cove: Client, gateway: Gateway
) -> None:
    demo = cove.workspaces.named("demo")
    await demo.refresh()
    await demo.execute("true", timeout=60)
    await demo.execute("true")
    await cove.workspaces.create(id="demo")
    assert gateway.remaining == pytest.approx([35, 75, 3615, 605], abs=6)


async def test_a_command_result_tells_its_status(cove: Client) -> None:
    result = await cove.workspaces.named("demo").execute("false")
    assert result.exit_status == 3


async def test_a_caller_that_may_die_can_choose_the_request_id(
    cove: Client, gateway: Gateway
) -> None:
    chosen = "6f1f4f0e-8d0a-4b8e-9d53-2a4f6f0b7c11"
    await cove.workspaces.create(id="demo", request_id=chosen)
    assert gateway.requests[0].request_id == chosen


async def test_a_checked_command_that_fails_says_which_and_why(cove: Client) -> None:
    demo = cove.workspaces.named("demo")
    with pytest.raises(CommandFailed) as caught:
        await demo.execute("make", "the tests", check=True)
    assert str(caught.value) == "make 'the tests': exit status 3\nno such target"
    assert caught.value.result.exit_status == 3


async def test_text_is_written_and_read_as_utf_8(cove: Client, gateway: Gateway) -> None:
    demo = cove.workspaces.named("demo")
    await demo.write("f", "ä\n")
    assert gateway.output == b"\xc3\xa4\n"
    assert await demo.read_text("f") == "ä\n"


def test_an_async_client_without_a_loop_is_told_of_the_blocking_one(address: str) -> None:
    with pytest.raises(RuntimeError, match=r"cove\.sync"):
        Client(address)
