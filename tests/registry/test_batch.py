"""BatchUpdateEnvironments: many writes, one commit, a result for each."""

import asyncio
import uuid
from typing import Any, Final

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from cove.registry.v1 import registry_pb2 as pb
from servicekit.errors import ServiceError
from servicekit.status import reason_name
from services.registry.errors import EtagMismatch
from services.registry.store import Key, Outcome, Record, Write
from tests.registry.caller import Caller, refused
from tests.registry.stores import open_store

State = pb.Environment.State
INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
BatchWrite = pb.BatchUpdateEnvironmentsRequest.Write


def node(name: str, value: str, *, etag: str = "", token: int = 0) -> pb.UpdateEnvironmentRequest:
    return pb.UpdateEnvironmentRequest(
        environment=pb.Environment(name=f"environments/{name}", node=value, etag=etag),
        update_mask=FieldMask(paths=["node"]),
        fencing_token=token,
    )


def failed(name: str) -> pb.UpdateEnvironmentStatusRequest:
    return pb.UpdateEnvironmentStatusRequest(
        name=f"environments/{name}",
        state=State.STATE_FAILED,
        failure=pb.Failure(reason="LOST", message="gone"),
        release_operation=True,
    )


def batch(*writes: BatchWrite, request_id: str = "") -> pb.BatchUpdateEnvironmentsRequest:
    return pb.BatchUpdateEnvironmentsRequest(writes=writes, request_id=request_id)


async def test_each_is_written_or_refused_by_itself(ada: Caller) -> None:
    one, two = await ada.register("one"), await ada.register("two")
    answer = await ada(
        batch(
            BatchWrite(update=node("one", "n1", etag=one.etag, token=one.fencing_token)),
            BatchWrite(update=node("nix", "n1")),
            BatchWrite(update=node("two", "n1", etag="stale")),
            BatchWrite(update=node("two", "n1", token=two.fencing_token + 7)),
            BatchWrite(update_status=failed("two")),
            BatchWrite(
                release=pb.ReleaseOperationRequest(name=one.name, fencing_token=one.fencing_token)
            ),
            BatchWrite(update=node("one", "n2", etag=one.etag)),
            BatchWrite(update=pb.UpdateEnvironmentRequest(
                environment=pb.Environment(name=one.name), update_mask=FieldMask(paths=["uid"]))),
            BatchWrite(update_status=pb.UpdateEnvironmentStatusRequest(
                name=two.name, state=State.STATE_SUSPENDED)),
        )
    )  # fmt: skip
    reasons = [reason_name(each.error) if each.HasField("error") else "" for each in answer.results]
    assert reasons == [
        *("", "ENVIRONMENT_NOT_FOUND", "ETAG_MISMATCH", "LEASE_LOST", "", ""),
        *("ETAG_MISMATCH", "FIELD_IMMUTABLE", "TRANSITION_FORBIDDEN"),
    ]
    now = await ada.get("one")
    assert (now.node, now.operation) == ("n1", pb.Environment.OPERATION_NONE)
    assert (answer.results[5].etag, answer.results[5].revision) == (now.etag, now.revision)
    assert (await ada.get("two")).failure.reason == "LOST"
    revisions = [each.revision for each in answer.results if not each.HasField("error")]
    assert revisions == [two.revision + 1, two.revision + 2, two.revision + 3]


async def test_a_batch_is_told_to_watchers_write_by_write(ada: Caller) -> None:
    made = [await ada.register(f"e{number}") for number in range(10)]
    async with ada.watch(from_revision=made[-1].revision) as call:
        await ada(batch(*(BatchWrite(update=node(f"e{number}", "n")) for number in range(10))))
        told: list[Any] = []
        while len(told) < 10:
            event: Any = await call.read()
            if event.HasField("put"):
                told.append(event.put)
    assert [each.name for each in told] == [each.name for each in made]
    assert [each.revision for each in told] == [made[-1].revision + n for n in range(1, 11)]


async def test_the_same_request_is_one_batch(ada: Caller) -> None:
    await ada.register("one")
    request = batch(
        BatchWrite(update=node("one", "n1")),
        BatchWrite(update=node("nix", "n1")),
        request_id=str(uuid.uuid4()),
    )
    first = await ada(request)
    await ada.update(pb.Environment(name="environments/one", node="n2"), "node")
    assert await ada(request) == first
    assert (await ada.get("one")).node == "n2"
    del request.writes[1]
    with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await ada(request)


async def test_a_batch_is_of_one_tenant(ada: Caller, channel: grpc.aio.Channel) -> None:
    await ada.register("one")
    eve = Caller(channel, tenant="evil", who="eve")
    answer = await eve(batch(BatchWrite(update=node("one", "stolen"))))
    assert reason_name(answer.results[0].error) == "ENVIRONMENT_NOT_FOUND"


async def test_what_is_no_batch_is_refused(ada: Caller) -> None:
    with refused(INVALID, "INVALID_FIELD"):
        await ada(batch())
    with refused(INVALID, "INVALID_FIELD"):
        await ada(batch(BatchWrite()))
    with refused(INVALID, "INVALID_FIELD"):
        await ada(batch(*(BatchWrite(update=node("one", "n")) for _ in range(1001))))
    single = node("one", "n")
    single.request_id = str(uuid.uuid4())
    with refused(INVALID, "INVALID_FIELD"):
        await ada(batch(BatchWrite(update=single)))


def put(key: Key, document: bytes = b"") -> Any:
    def change(_: Record | None, revision: int) -> Outcome:
        record = Record(*key, str(key), 1, 1, 0, 0, revision, document)
        return Outcome(response=b"%d" % revision, put=record)

    return change


def refuse(_: Record | None, __: int) -> Outcome:
    raise EtagMismatch("no")


def joined(results: Any) -> bytes:
    return b" ".join(b"-" if isinstance(each, ServiceError) else each for each in results)


async def test_a_batch_is_one_commit_and_one_that_breaks_is_none(database: str) -> None:
    async with open_store(database) as store:
        before = store.commits
        keys = [Key("acme", f"environments/{number}") for number in range(100)]
        writes = [Write(key, put(key) if number % 3 else refuse) for number, key in enumerate(keys)]
        answer = await store.write_all(writes, joined)
        assert answer.split().count(b"-") == 34
        assert answer.split()[-1:] == [b"-"]
        assert store.commits == before + 1

        def full(_: Record | None, __: int) -> Outcome:
            raise Broken

        with pytest.raises(Broken):
            await store.write_all([Write(keys[0], put(keys[0])), Write(keys[1], full)], joined)
        assert not await store.exists(keys[0])
        assert (await store.span()).latest == 66
        assert len(await store.history(0, 1000)) == 66


class Broken(Exception):
    """What is no refusal of a rule."""


async def test_a_batch_beside_single_writes_leaves_no_hole(database: str) -> None:
    async with open_store(database) as store:
        keys = [Key("acme", f"environments/{number}") for number in range(300)]
        batches = [
            store.write_all([Write(key, put(key)) for key in keys[start : start + 50]], joined)
            for start in range(0, 200, 50)
        ]
        await asyncio.gather(*batches, *(store.write(key, put(key)) for key in keys[200:]))
        assert [event.revision for event in await store.history(0, 1000)] == list(range(1, 301))
