"""What every call goes through, as a caller sees it."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.options.v1.options_pb2 import Role
from servicekit import calls
from servicekit.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Precondition,
    ResourceExhausted,
    Unauthenticated,
    Violation,
)
from servicekit.identity import Caller, Identity
from tests.servicekit.failing import failure
from tests.servicekit.kit import Kit, Protos, reflecting, running

SHAPES = ["Say", "Count", "CountByWriting", "Join", "Echo"]


class NotHere(NotFound):
    reason = ErrorReason.ERROR_REASON_FILE_NOT_FOUND


async def requests(*messages: Any) -> AsyncIterator[Any]:
    for message in messages:
        yield message


def call(kit: Kit, method: str, *texts: str, metadata: Any = (), **fields: Any) -> Any:
    """Call a method of whatever shape."""
    messages = [kit.pb.SayRequest(text=text, **fields) for text in texts or ("",)]
    given = requests(*messages) if method in ("Join", "Echo") else messages[0]
    return getattr(kit.stub, method)(given, metadata=metadata)


def mode(path: str) -> int:
    return Path(path).stat().st_mode & 0o777


async def answer(made: Any) -> list[str]:
    if hasattr(made, "__aiter__"):
        return [response.text async for response in made]
    return [(await made).text]


async def test_all_shapes_answer(protos: Protos, tmp_path: Path) -> None:
    async with running(protos, tmp_path) as kit:
        assert await answer(call(kit, "Say", "a")) == ["a"]
        assert await answer(call(kit, "Count", "a")) == ["a0", "a1", "a2"]
        assert await answer(call(kit, "CountByWriting", "a")) == ["a0", "a1", "a2"]
        assert await answer(call(kit, "Join", "a", "b")) == ["ab"]
        assert await answer(call(kit, "Echo", "a", "b")) == ["a", "b"]


@pytest.mark.parametrize("method", SHAPES)
async def test_a_broken_rule_names_its_field(protos: Protos, tmp_path: Path, method: str) -> None:
    async with running(protos, tmp_path) as kit:
        nested = kit.pb.SayRequest.Spec(label="UP")
        spec = kit.pb.SayRequest.Spec(label="NO", more=[nested], by_name={"x": nested})
        failed = await failure(call(kit, method, "a", spec=spec))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.reason == "INVALID_FIELD"
    bad = failed.detail(error_details_pb2.BadRequest)
    assert {each.field for each in bad.field_violations} == {
        "spec.label",
        "spec.more[0].label",
        'spec.by_name["x"].label',
    }
    assert "regex" in bad.field_violations[0].description


async def test_a_failure_of_much_to_tell_fits_into_what_a_client_takes(
    protos: Protos, tmp_path: Path
) -> None:
    """gRPC's clients refuse trailers of 8 KiB now and then, and of 16 KiB always."""
    wrong = [Violation(f"spec.env[{'k' * 3000}{number}]", "€" * 5000) for number in range(500)]

    async def say(request: Any) -> str:
        if request.text:
            raise NotHere("m" * 20_000, path="p" * 20_000)
        raise InvalidArgument(wrong[0].field, wrong[0].problem, violations=wrong)

    async with running(protos, tmp_path, say=say) as kit:
        bad = await failure(kit.stub.Say(kit.pb.SayRequest()))
        missing = await failure(kit.stub.Say(kit.pb.SayRequest(text="x")))
    assert (bad.code, bad.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    told = bad.detail(error_details_pb2.BadRequest).field_violations
    assert told[0].field.startswith("spec.env[kkk")
    assert told[-1].description == f"and {len(wrong) - len(told) + 1} more"
    assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND")
    assert missing.info.metadata["path"].startswith("ppp")


@pytest.mark.parametrize(("seconds", "nanos"), [(0, 2**31 - 1), (1, -1), (2**62, 0)])
async def test_a_time_that_is_none_names_its_field(
    protos: Protos, tmp_path: Path, seconds: int, nanos: int
) -> None:
    async with running(protos, tmp_path) as kit:
        spec = kit.pb.SayRequest.Spec()
        spec.by_name["x"].extra.seconds, spec.by_name["x"].extra.nanos = seconds, nanos
        failed = await failure(call(kit, "Say", "a", spec=spec))
    assert failed.reason == "INVALID_FIELD"
    (bad,) = failed.detail(error_details_pb2.BadRequest).field_violations
    assert bad.field == "spec.by_name['x'].extra"


@pytest.mark.parametrize("method", SHAPES)
async def test_a_message_over_the_limit_is_refused(
    protos: Protos, tmp_path: Path, method: str
) -> None:
    async with running(protos, tmp_path, max_message_size=1000) as kit:
        failed = await failure(call(kit, method, "a" * 1001))
    assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failed.reason == "MESSAGE_TOO_LARGE"
    assert failed.info.metadata == {"limit": "1000"}


async def test_bytes_that_are_no_message_are_refused(protos: Protos, tmp_path: Path) -> None:
    async with running(protos, tmp_path) as kit:
        raw: Any = kit.channel.unary_unary("/cove.kittest.v1.KitService/Say")
        failed = await failure(raw(b"\xff\xff\xff"))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.reason == "INVALID_FIELD"


async def test_a_failure_brings_reason_metadata_and_remedy(protos: Protos, tmp_path: Path) -> None:
    async def say(request: Any) -> str:
        raise NotHere("no such file", path="a/b")

    async with running(protos, tmp_path, say=say) as kit:
        failed = await failure(call(kit, "Say"))
    assert (failed.code, failed.text) == (grpc.StatusCode.NOT_FOUND, "no such file")
    assert failed.info.domain == "cove"
    assert failed.reason == "FILE_NOT_FOUND"
    assert failed.info.metadata == {"path": "a/b"}
    assert "list the directory" in failed.detail(error_details_pb2.LocalizedMessage).message


async def test_a_failure_brings_its_own_details(protos: Protos, tmp_path: Path) -> None:
    async def count(request: Any) -> AsyncIterator[str]:
        yield "one"
        precondition = Precondition("STATE", "x", "is asleep")
        raise FailedPrecondition("asleep", remedy="wake it", preconditions=[precondition])

    async with running(protos, tmp_path, count=count) as kit:
        failed = await failure(call(kit, "Count"))
    assert failed.detail(error_details_pb2.LocalizedMessage).message == "wake it"
    found = failed.detail(error_details_pb2.PreconditionFailure).violations[0]
    assert (found.type, found.subject, found.description) == ("STATE", "x", "is asleep")


@pytest.mark.parametrize("method", ["Say", "Count", "CountByWriting"])
async def test_an_unexpected_error_tells_the_correlation_id_only(
    protos: Protos, tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def say(request: Any) -> str:
        raise ValueError("a secret")

    async def count(request: Any) -> AsyncIterator[str]:
        yield "one"
        raise ValueError("a secret")

    async with running(protos, tmp_path, say=say, count=count) as kit:
        failed = await failure(call(kit, method, metadata=(("x-request-id", "abc"),)))
    assert (failed.code, failed.text) == (grpc.StatusCode.INTERNAL, "internal error")
    assert failed.info.metadata == {"request_id": "abc"}
    assert "a secret" not in str(failed.status)
    assert "a secret" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_write_for_which_there_is_no_room_says_so(
    protos: Protos, tmp_path: Path, number: int
) -> None:
    async def say(request: Any) -> str:
        raise OSError(number, os.strerror(number), "/a/secret/path")

    async with running(protos, tmp_path, say=say) as kit:
        failed = await failure(call(kit, "Say"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL")
    assert "secret" not in str(failed.status)


async def test_correlation_id_is_taken_or_made_and_returned(protos: Protos, tmp_path: Path) -> None:
    seen: list[calls.Call] = []

    async def say(request: Any) -> str:
        seen.append(calls.current())
        return ""

    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with running(protos, tmp_path, say=say) as kit:
        made = call(kit, "Say", metadata=(("x-request-id", "my-id"), ("traceparent", trace)))
        await made
        assert dict(await made.trailing_metadata())["x-request-id"] == "my-id"
        bad = call(kit, "Say", metadata=(("x-request-id", "a b\x20"), ("traceparent", "00-0")))
        await bad
        returned = dict(await bad.trailing_metadata())["x-request-id"]
        failed = await failure(call(kit, "SayUnlisted", metadata=(("x-request-id", "id3"),)))
    assert (seen[0].correlation_id, seen[0].traceparent) == ("my-id", trace)
    assert seen[1].correlation_id == returned
    assert len(returned) == 32
    assert len(seen[1].traceparent) == 55
    assert failed.trailing["x-request-id"] == "id3"


async def test_identity_comes_from_metadata_on_a_private_socket(
    protos: Protos, tmp_path: Path
) -> None:
    async def say(request: Any) -> str:
        identity = calls.current().identity
        return f"{identity.principal}@{identity.tenant}"

    async with running(protos, tmp_path, say=say) as kit:
        metadata = (("cove-principal", "ada"), ("cove-tenant", "acme"))
        assert await answer(call(kit, "Say", metadata=metadata)) == ["ada@acme"]
        assert mode(kit.served.address.removeprefix("unix:")) == 0o600
        assert mode(str(tmp_path / "r")) == 0o700


@pytest.mark.parametrize("method", SHAPES)
@pytest.mark.parametrize("token", [None, "", "wrong", "rights", "right"])
async def test_over_tcp_only_the_service_token_is_believed(
    protos: Protos, tmp_path: Path, method: str, token: str | None
) -> None:
    file = tmp_path / "token"
    file.write_text("right\n")
    file.chmod(0o600)
    address = ("127.0.0.1:0",)
    metadata = () if token is None else (("cove-service-token", token),)
    async with running(protos, tmp_path, address=address, service_token_file=file) as kit:
        if token == "right":
            await answer(call(kit, method, "a", metadata=metadata))
        else:
            failed = await failure(call(kit, method, "a", metadata=metadata))
            assert failed.code is grpc.StatusCode.UNAUTHENTICATED
            assert failed.reason == "UNAUTHENTICATED"


async def test_an_rpc_without_access_option_is_refused(protos: Protos, tmp_path: Path) -> None:
    async with running(protos, tmp_path) as kit:
        failed = await failure(call(kit, "SayUnlisted"))
    assert failed.code is grpc.StatusCode.PERMISSION_DENIED
    assert failed.reason == "PERMISSION_DENIED"


class Readers:
    """Knows one token, of a reader."""

    async def authenticate(self, caller: Caller) -> Identity:
        if caller.metadata.get("authorization") != "Bearer t":
            raise Unauthenticated("no valid token")
        return Identity("ada", "acme", Role.ROLE_READER)


async def test_a_role_that_is_too_low_is_refused(protos: Protos, tmp_path: Path) -> None:
    metadata = (("authorization", "Bearer t"),)
    async with running(protos, tmp_path, authenticator=Readers()) as kit:
        assert await answer(call(kit, "Count", "a", metadata=metadata)) == ["a0", "a1", "a2"]
        failed = await failure(call(kit, "Say", "a", metadata=metadata))
        assert failed.code is grpc.StatusCode.PERMISSION_DENIED
        assert failed.info.metadata == {"role": "ROLE_WRITER"}
        assert (await failure(call(kit, "Count"))).code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (Unauthenticated("no valid token"), grpc.StatusCode.UNAUTHENTICATED),
        (PermissionDenied("not for that tenant"), grpc.StatusCode.PERMISSION_DENIED),
        (ResourceExhausted("too many guesses"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (RuntimeError("a bug"), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_what_lasts_ends_when_its_caller_is_not_let_in_whyever(
    protos: Protos, tmp_path: Path, problem: Exception, code: grpc.StatusCode
) -> None:
    class Doorman:
        """Lets in everybody, and then those no more who turned up first."""

        closed = False

        async def authenticate(self, caller: Caller) -> Identity:
            if self.closed and caller.metadata["authorization"] == "first":
                raise problem
            return Identity("ada", "acme", Role.ROLE_WRITER)

    doorman = Doorman()

    async def count(request: Any) -> AsyncIterator[str]:
        yield "here"
        await asyncio.Event().wait()

    async with running(protos, tmp_path, authenticator=doorman, count=count) as kit:
        made = [
            call(kit, "Count", metadata=(("authorization", who),)) for who in ("other", "first")
        ]
        for each in made:
            await each.read()
        doorman.closed = True
        other, first = made
        assert (await failure(first.read())).code is code
        assert not other.done()  # Nor did who looks at that end with it.
        doorman.closed = False
        again = call(kit, "Count", metadata=(("authorization", "first"),))
        await again.read()
        doorman.closed = True
        assert (await failure(again.read())).code is code


class Doorman:
    """Says of everybody what the test has put in."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.said: Identity | Exception = Identity("ada", "acme", Role.ROLE_WRITER)

    async def authenticate(self, caller: Caller) -> Identity:
        self.asked.set()
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


async def test_a_wait_ends_when_its_caller_is_not_let_in_any_more(
    protos: Protos, tmp_path: Path
) -> None:
    """Of whatever shape; and it is over before its caller is told."""
    waiting, ended, doorman = asyncio.Event(), asyncio.Event(), Doorman()

    async def say(request: Any) -> str:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with running(protos, tmp_path, authenticator=doorman, say=say) as kit:
        for timeout in (None, 25):  # With a deadline of its own, too.
            doorman.said = Identity("ada", "acme", Role.ROLE_WRITER)
            waiting.clear()
            made = kit.stub.Say(kit.pb.SayRequest(), timeout=timeout)
            await waiting.wait()
            doorman.said = Unauthenticated("revoked")
            failed = await failure(made)
            assert (failed.code, failed.text) == (grpc.StatusCode.UNAUTHENTICATED, "revoked")
            assert ended.is_set()


async def test_a_request_that_is_held_back_outlives_no_revocation(
    protos: Protos, tmp_path: Path
) -> None:
    doorman = Doorman()
    done: list[str] = []

    async def say(request: Any) -> str:
        done.append(request.text)
        return ""

    async with running(protos, tmp_path, authenticator=doorman, say=say) as kit:
        held: Any = kit.channel.stream_unary("/cove.kittest.v1.KitService/Say")(timeout=20)
        await doorman.asked.wait()
        doorman.said = Unauthenticated("revoked")
        assert (await failure(held)).text == "revoked"
    assert not done


@pytest.mark.parametrize(
    "now",
    [
        Identity("ada", "other", Role.ROLE_WRITER),
        Identity("ada", "acme", Role.ROLE_READER),
    ],
)
async def test_what_goes_on_ends_when_its_caller_is_somebody_else(
    protos: Protos, tmp_path: Path, now: Identity
) -> None:
    """As when who a certificate is of was changed: what it may see and do was decided before."""
    doorman = Doorman()

    async def count(request: Any) -> AsyncIterator[str]:
        yield "here"
        await asyncio.Event().wait()

    async with running(protos, tmp_path, authenticator=doorman, count=count) as kit:
        made = call(kit, "Count")
        await made.read()
        doorman.said = now
        assert (await failure(made.read())).code is grpc.StatusCode.UNAUTHENTICATED


async def test_each_tenant_that_a_caller_acts_in_is_asked_about(
    protos: Protos, tmp_path: Path
) -> None:
    class Operators:
        """Let in everybody; in another tenant nobody acts any more once it is closed."""

        closed = False

        async def authenticate(self, caller: Caller) -> Identity:
            tenant = caller.metadata.get("cove-tenant", "acme")
            if self.closed and tenant == "other":
                raise PermissionDenied("not there")
            return Identity("ada", tenant, Role.ROLE_WRITER)

    async def count(request: Any) -> AsyncIterator[str]:
        yield "here"
        await asyncio.Event().wait()

    operators = Operators()
    async with running(protos, tmp_path, authenticator=operators, count=count) as kit:
        there = call(kit, "Count", metadata=(("cove-tenant", "other"),))
        here = call(kit, "Count")
        for each in (there, here):
            await each.read()
        operators.closed = True
        assert (await failure(there.read())).code is grpc.StatusCode.PERMISSION_DENIED
        assert not here.done()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_ends_with_its_caller(
    protos: Protos, tmp_path: Path, version: str
) -> None:
    doorman = Doorman()
    async with running(protos, tmp_path, authenticator=doorman) as kit:
        made = await reflecting(kit.channel, version)
        doorman.said = Unauthenticated("revoked")
        assert (await failure(made)).code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_call_without_deadline_gets_the_one_of_its_rpc(
    protos: Protos, tmp_path: Path
) -> None:
    remaining: list[float | None] = []
    ended = asyncio.Event()

    async def say(request: Any) -> str:
        remaining.append(calls.current().remaining())
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with running(protos, tmp_path, say=say) as kit:
        spec = kit.pb.SayRequest.Spec()
        spec.extra.FromMilliseconds(50)
        for given in (None, spec):
            ended.clear()
            failed = await failure(kit.stub.SayQuickly(kit.pb.SayRequest(spec=given)))
            assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert failed.reason == "DEADLINE_EXCEEDED"
            assert ended.is_set()
        longer = await failure(kit.stub.SayQuickly(kit.pb.SayRequest(), timeout=20))
        assert longer.reason == "DEADLINE_EXCEEDED"
    # What passed until the handler looked is not told, only that it was given no more.
    for each, most in zip(remaining, (0.2, 0.15, 0.2), strict=True):
        assert each is not None
        assert 0 < each <= most


async def test_a_shorter_deadline_of_the_caller_wins(protos: Protos, tmp_path: Path) -> None:
    remaining: list[float | None] = []

    async def say(request: Any) -> str:
        remaining.append(calls.current().remaining())
        return ""

    async with running(protos, tmp_path, say=say) as kit:
        await kit.stub.Say(kit.pb.SayRequest(), timeout=20)
        await kit.stub.Say(kit.pb.SayRequest())
    # What passed until the handler looked is not told.
    assert remaining[0] is not None
    assert 0 < remaining[0] < 20.2
    assert remaining[1] is not None
    assert 20.2 < remaining[1] <= 30


@pytest.mark.parametrize("method", ["Count", "CountByWriting"])
async def test_a_caller_that_leaves_closes_the_handler_at_once(
    protos: Protos, tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    closed = asyncio.Event()

    async def count(request: Any) -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                await asyncio.sleep(0)
        finally:
            closed.set()

    async with running(protos, tmp_path, count=count) as kit:
        for _ in range(200):
            closed.clear()
            made = call(kit, method)
            await made.read()
            made.cancel()
            async with asyncio.timeout(30):
                await closed.wait()
    assert "unexpected error" not in caplog.text


async def test_a_timeout_of_the_handler_itself_is_not_a_deadline(
    protos: Protos, tmp_path: Path
) -> None:
    async def say(request: Any) -> str:
        raise TimeoutError

    async with running(protos, tmp_path, say=say) as kit:
        assert (await failure(call(kit, "Say"))).code is grpc.StatusCode.INTERNAL


async def test_a_cancel_of_what_the_handler_waits_for_is_not_one_of_the_call(
    protos: Protos, tmp_path: Path
) -> None:
    async def say(request: Any) -> str:
        raise asyncio.CancelledError

    async with running(protos, tmp_path, say=say) as kit:
        failed = await failure(call(kit, "Say"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")


async def test_an_unknown_method_is_unimplemented(protos: Protos, tmp_path: Path) -> None:
    async with running(protos, tmp_path) as kit:
        for path in ("/cove.kittest.v1.KitService/None", "/cove.none.v1.None/None", "/x"):
            method: Any = kit.channel.unary_unary(path)
            failed = await failure(method(b""))
            assert failed.code is grpc.StatusCode.UNIMPLEMENTED
