"""The dates of an environment's life, and why it is suspended or ends: all by this clock.

A clock that was ahead when something was dated, and is set back, must make nothing last for
longer than it was asked for: where such a date is written anew, it counts from now.
"""

from collections.abc import Collection
from datetime import timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from cove.registry.v1.registry_pb2 import Environment
from servicekit.errors import InvalidArgument
from services.registry.errors import OperationInProgress
from services.registry.states import State

TTL: Final = "spec.ttl"
_ENDING: Final = (State.STATE_DELETING, State.STATE_DELETED)
_CAUSED: Final = (*_ENDING, State.STATE_SUSPENDED)
"""States that have a cause."""
_RETRY: Final = timedelta(seconds=1)


def date(message: Environment, now: int) -> None:
    """Set when it expires: its `ttl` after its creation, however far ahead that was dated."""
    if not message.spec.HasField("ttl"):
        message.ClearField("expire_time")
        return
    begun = min(message.create_time.ToNanoseconds(), now)
    message.expire_time.FromNanoseconds(begun + message.spec.ttl.ToNanoseconds())


def updated(message: Environment, paths: Collection[str], seen: int, now: int) -> None:
    """After a caller changed these fields; `seen` is when it was last active before.

    Raises InvalidArgument for a `ttl` that is over, OperationInProgress where it came too late.
    """
    if TTL in paths:
        deleting = message.operation == Environment.OPERATION_DELETING
        if deleting or message.state in _ENDING:
            raise OperationInProgress(
                "it is being deleted",
                operation=Environment.Operation.Name(Environment.OPERATION_DELETING),
                holder=message.operation_holder,
                retry_after=_RETRY,
            )
        date(message, now)
        if message.HasField("expire_time") and message.expire_time.ToNanoseconds() <= now:
            raise InvalidArgument(
                f"environment.{TTL}", "counts from the creation, and would be over already"
            )
    if "last_active_time" in paths:
        given = message.last_active_time.ToNanoseconds()
        message.last_active_time.FromNanoseconds(min(max(seen, given), now))


def moved(message: Environment, before: State.ValueType, now: int) -> None:
    """After it came from the state `before` to the one it has, which may be the same."""
    was = message.state == before
    match message.state:
        case State.STATE_READY if not was:
            message.last_active_time.FromNanoseconds(now)
            message.ClearField("cause")
            message.ClearField("suspend_time")
            if before == State.STATE_DELETED and message.spec.HasField("ttl"):
                # Else it would be deleted again at once.
                message.expire_time.FromNanoseconds(now + message.spec.ttl.ToNanoseconds())
        case State.STATE_SUSPENDED if not was:
            message.suspend_time.FromNanoseconds(now)
        case State.STATE_DELETED if not was or message.delete_time.ToNanoseconds() > now:
            message.delete_time.FromNanoseconds(now)


def released(message: Environment) -> None:
    """After its operation ended: what did not come to be has no cause."""
    if message.state not in _CAUSED:
        message.ClearField("cause")


def time(now: int) -> Timestamp:
    """A message of it."""
    made = Timestamp()
    made.FromNanoseconds(now)
    return made
