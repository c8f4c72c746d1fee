"""The failures a service may report to its caller. Knows nothing of gRPC.

    ServiceError
     ├ InvalidArgument   ├ Aborted             ├ PermissionDenied
     ├ NotFound          ├ OutOfRange          ├ Unauthenticated
     ├ AlreadyExists     ├ ResourceExhausted   ├ DeadlineExceeded
     └ FailedPrecondition└ Unavailable

A service makes subclasses that fix the `reason`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from cove.errors.v1.errors_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field of the request."""

    field: str
    problem: str


@dataclass(frozen=True, slots=True)
class Precondition:
    """What about the system's state forbids the call."""

    kind: str
    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class Quota:
    """Which limit was reached, and by whom."""

    subject: str
    description: str
    metric: str = ""
    value: int = 0


class ServiceError(Exception):
    """Base of every expected failure; raise one of the kinds below.

    The message goes to the caller: no secret, no path of this machine.
    `metadata` holds what varies, so that messages stay short and alike. Without
    a `remedy` the caller gets the usual one of the reason.
    """

    reason: ClassVar[ErrorReason.ValueType] = ErrorReason.ERROR_REASON_UNSPECIFIED

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        retry_after: timedelta | None = None,
        violations: Sequence[Violation] = (),
        preconditions: Sequence[Precondition] = (),
        quotas: Sequence[Quota] = (),
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.retry_after = retry_after
        self.violations = tuple(violations)
        self.preconditions = tuple(preconditions)
        self.quotas = tuple(quotas)
        self.metadata = metadata


class InvalidArgument(ServiceError):
    """A field of the request is wrong, whatever the state of the system."""

    reason = ErrorReason.ERROR_REASON_INVALID_FIELD

    def __init__(
        self,
        field: str,
        problem: str,
        *,
        remedy: str = "",
        violations: Sequence[Violation] = (),
        **metadata: str,
    ) -> None:
        super().__init__(
            f"{field}: {problem}" if field else problem,
            remedy=remedy,
            violations=violations or (Violation(field, problem),),
        )
        self.metadata = metadata


class NotFound(ServiceError):
    """The named resource does not exist."""


class AlreadyExists(ServiceError):
    """Another resource has that name."""


class FailedPrecondition(ServiceError):
    """The resource's state forbids it; retrying alone will not help."""


class Aborted(ServiceError):
    """Lost a race, say over an etag; read again, then retry."""


class OutOfRange(ServiceError):
    """A position beyond what there is."""


class ResourceExhausted(ServiceError):
    """A limit is reached."""


class Unavailable(ServiceError):
    """A dependency is away; the same call may be retried."""

    reason = ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE


class PermissionDenied(ServiceError):
    """The caller is known, and may not do this."""

    reason = ErrorReason.ERROR_REASON_PERMISSION_DENIED


class Unauthenticated(ServiceError):
    """The caller is not known."""

    reason = ErrorReason.ERROR_REASON_UNAUTHENTICATED


class DeadlineExceeded(ServiceError):
    """The time is up. What was begun may go on."""

    reason = ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
