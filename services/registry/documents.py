"""The record of an environment: read under its caller's conditions, leased, and stored anew."""

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.field_mask_pb2 import FieldMask

from cove.registry.v1 import registry_pb2 as pb
from services.registry import life
from services.registry.errors import (
    DocumentTooLarge,
    EnvironmentNotFound,
    EtagMismatch,
    LeaseLost,
)
from services.registry.store import Outcome, Record

_CLOCK_SLACK: Final = 5 * 10**9
"""A clock that was set back by more nanoseconds than these ends the leases it gave before."""

_MAX_BYTES: Final = 1 << 20
"""So that a page, and a watch, never get larger than a client takes."""


def opened(current: Record | None, name: str, etag: str = "", token: int = 0) -> pb.Environment:
    """The stored message, if the caller's conditions hold. A token of 0 is none."""
    if current is None:
        raise not_found(name)
    message = pb.Environment.FromString(current.document)
    if token and token != message.fencing_token:
        raise lease_lost(name)
    if etag and etag != message.etag:
        raise EtagMismatch("changed since it was read", name=name)
    return message


def stored(
    answer: Any, message: pb.Environment, lease_start: int, now: int, revision: int
) -> Outcome:
    """Store the message as this revision, and answer with it."""
    message.update_time.FromNanoseconds(now)
    message.revision = revision
    message.etag = f"{revision:x}"
    answer.environment.CopyFrom(message)
    document = message.SerializeToString()
    if len(document) > _MAX_BYTES:
        raise DocumentTooLarge("the environment would be too large", limit=str(_MAX_BYTES))
    record = Record(
        tenant=message.tenant,
        name=message.name,
        uid=message.uid,
        state=message.state,
        operation=message.operation,
        lease_start=lease_start,
        lease_end=message.lease_expire_time.ToNanoseconds(),
        revision=revision,
        document=document,
        create_time=message.create_time.ToNanoseconds(),
        update_time=now,
        counted=int(_counts(message)),
    )
    return Outcome(response=answer.SerializeToString(), put=record)


def _counts(message: pb.Environment) -> bool:
    """Whether it is one of the workspaces that its tenant may have a number of.

    One that was deleted is not, from then on; unless it is being brought back, which takes
    its place before anything is made.
    """
    return (
        not message.HasField("delete_time")
        or message.operation == pb.Environment.OPERATION_RESUMING
    )


def claim(
    message: pb.Environment,
    operation: pb.Environment.Operation.ValueType,
    holder: str,
    now: int,
    end: int,
    token: int,
) -> None:
    """The revision of the claim is the token: it grows, even when a name is taken anew.

    An operation that is taken over has begun when it did first.
    """
    if message.operation != operation or not message.HasField("operation_start_time"):
        message.operation_start_time.CopyFrom(life.time(now))
    message.operation = operation
    message.operation_holder = holder
    message.lease_expire_time.FromNanoseconds(end)
    message.fencing_token = token
    message.ClearField("progress")


def release(message: pb.Environment) -> None:
    message.operation = pb.Environment.OPERATION_NONE
    message.ClearField("operation_holder")
    message.ClearField("lease_expire_time")
    message.ClearField("operation_start_time")
    message.ClearField("progress")
    life.released(message)


def lease_left(current: Record, now: int) -> int:
    """Nanoseconds that the lease still has; 0 when it is over.

    A clock that was set back to before the lease began ends it: so none lasts longer
    than twice its length, whatever the clock does.
    """
    begun = current.lease_start - _CLOCK_SLACK <= now
    return max(0, current.lease_end - now) if begun else 0


def copy(fields: Iterable[str], source: pb.Environment, target: pb.Environment) -> None:
    """Make the fields of `target` what they are in `source`, unset included."""
    mask = FieldMask(paths=fields)
    mask.MergeMessage(source, target, replace_message_field=True, replace_repeated_field=True)


def not_found(name: str) -> EnvironmentNotFound:
    return EnvironmentNotFound("no such environment", name=name)


def lease_lost(name: str) -> LeaseLost:
    return LeaseLost("the fencing token is not the current one", name=name)
