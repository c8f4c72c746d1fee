"""How long each operation may take: what is not over then is undone, or ends in FAILED.

| operation | limit | then |
|---|---|---|
| CREATING | `create_limit` | tried once more, then undone; with `on_failure` KEEP it is FAILED |
| DELETING, and the undoing of a create | `operation_limit` | FAILED; can be deleted again |
| UPDATING | `operation_limit` | FAILED: what the record says is not in force |
| any other | the lease | released: the state is as it was before |

One that takes longer while its gateway lives is broken off there after the same time.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.registry.v1.registry_pb2 import Environment, Failure
from gateway.records import Operation, State
from servicekit.errors import ServiceError
from servicekit.remedies import REMEDIES

_MESSAGE_LENGTH: Final = 4096
_PREFIX: Final = "ERROR_REASON_"


class Deadlines:
    def __init__(self, create_limit: timedelta, operation_limit: timedelta) -> None:
        self._create_limit = create_limit
        self._operation_limit = operation_limit

    def limit(self, operation: Operation.ValueType) -> timedelta:
        creating = operation == Operation.OPERATION_CREATING
        return self._create_limit if creating else self._operation_limit

    def over(self, environment: Environment, now: datetime) -> bool:
        """Whether the time of what is being done to it is over."""
        match environment.state:
            case State.STATE_PENDING:
                began, limit = environment.create_time, self._create_limit
            case State.STATE_DELETING:
                began, limit = environment.state_start_time, self._operation_limit
            case _:
                began, limit = environment.operation_start_time, self._operation_limit
        # A record of an earlier version does not say when.
        return began.ToNanoseconds() > 0 and now >= began.ToDatetime(tzinfo=UTC) + limit


def timed_out(environment: Environment, error: Exception) -> Failure:
    """What the record says of an operation that is given up, and what stood in its way."""
    name = Operation.Name(environment.operation).removeprefix("OPERATION_")
    return failure(
        ErrorReason.ERROR_REASON_OPERATION_TIMED_OUT,
        f"{name} did not end within its time: {said(error)}",
    )


def failure(reason: ErrorReason.ValueType, message: str, remedy: str = "") -> Failure:
    name = ErrorReason.Name(reason)
    return Failure(
        reason=name,
        message=message[:_MESSAGE_LENGTH],
        remedy=remedy or REMEDIES[name.removeprefix(_PREFIX)],
    )


def said(error: Exception) -> str:
    """What a tool told of a failure; nothing of one that is ours."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.details() or ""
    return str(error) if isinstance(error, ServiceError) else "internal error"
