"""What a failed call says: its code, its reason, and what to do about it.

CoveError
 ├── InvalidArgument   NotFound           AlreadyExists     FailedPrecondition
 ├── Aborted           OutOfRange         ResourceExhausted PermissionDenied
 └── Unauthenticated   DeadlineExceeded   Unavailable       Internal
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import grpc
from google.rpc import error_details_pb2, status_pb2

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.handshake import explain

_DOMAIN: Final = "cove"
_DETAILS_KEY: Final = "grpc-status-details-bin"
_CORRELATION_KEY: Final = "x-request-id"
_UNSPECIFIED: Final = "ERROR_REASON_UNSPECIFIED"

# How gRPC tells that a connection or a call broke off.
_BROKEN_OFF: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
_BROKEN_OFF_TEXTS: Final = ("RST_STREAM", "Internal error from Core")


@dataclass(frozen=True, slots=True)
class Violation:
    """A field of the request that is wrong."""

    field: str
    problem: str


_UNKNOWN_CALLER: Final = (
    "Set COVE_TOKEN; or COVE_STATE to the directory of `cove up`, as the user who started it."
)


class CoveError(Exception):
    """A call that failed. The subclass is its kind, `reason` what a program branches on.

    A traceback shows the reason, the metadata and the remedy too.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = _UNSPECIFIED,
        metadata: Mapping[str, str] | None = None,
        fields: tuple[Violation, ...] = (),
        remedy: str = "",
        retry_after: float | None = None,
        request_id: str = "",
        broken_off: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        """Name of a `cove.errors.v1.ErrorReason`, maybe one newer than this client."""
        self.metadata = dict(metadata or {})
        self.fields = fields
        self.remedy = remedy
        """What a person can do about it; may be empty."""
        self.retry_after = retry_after
        """Seconds after which the server wants to be asked again."""
        self.request_id = request_id
        """The correlation id, by which an operator finds the call in the logs."""
        self.broken_off = broken_off
        """Whether the connection or the stream ended, and not the gateway said so."""
        particulars = [f"{key}={value}" for key, value in self.metadata.items()]
        if reason != _UNSPECIFIED or particulars:
            self.add_note(" ".join([reason, *particulars]))
        if remedy:
            self.add_note(remedy)


class InvalidArgument(CoveError):
    """A field is wrong, whatever the state of the system; see `fields`."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(CoveError):
    """The named thing does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(CoveError):
    """Another thing has that name."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(CoveError):
    """The state of things forbids it; asking again alone will not help."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(CoveError):
    """Lost a race, say over an etag: read again, then retry."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(CoveError):
    """An offset is beyond the end."""

    code = grpc.StatusCode.OUT_OF_RANGE


class ResourceExhausted(CoveError):
    """A limit is reached."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class PermissionDenied(CoveError):
    """The caller is known, and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(CoveError):
    """The token is missing or wrong."""

    code = grpc.StatusCode.UNAUTHENTICATED


class DeadlineExceeded(CoveError):
    """No answer in time. What was begun may go on."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unavailable(CoveError):
    """Nobody answers, also after the retries of this client."""

    code = grpc.StatusCode.UNAVAILABLE


class Internal(CoveError):
    """Something went wrong inside Cove; `request_id` finds it in the logs."""

    code = grpc.StatusCode.INTERNAL


def reason(error: grpc.aio.AioRpcError) -> ErrorReason.ValueType:
    """The `ErrorReason` of a failed call; unspecified if it has none we know."""
    info = _info(_status(error))
    known = ErrorReason.DESCRIPTOR.values_by_name.get(info.reason)
    return ErrorReason.Value(known.name) if known else ErrorReason.ERROR_REASON_UNSPECIFIED


def broken_off(address: str, cause: str = "", correlation_id: str = "") -> "Unavailable":
    """The gateway at `address` cannot be reached, or broke off."""
    message, remedy = explain(address, cause) or (
        f"no answer from the gateway at {address}",
        "Start the suite with `cove up`, or say where it is with COVE_ADDRESS.",
    )
    return Unavailable(
        message,
        metadata={"cause": cause} if cause else {},
        remedy=remedy,
        request_id=correlation_id,
        broken_off=True,
    )


def of(error: grpc.aio.AioRpcError, address: str) -> CoveError:
    """What a call to the gateway at `address` failed with, as an error of this module."""
    status = _status(error)
    text = error.details() or ""
    correlation_id = _text(error, _CORRELATION_KEY)
    info = _info(status)
    broken = error.code() in _BROKEN_OFF or any(each in text for each in _BROKEN_OFF_TEXTS)
    if broken and not info.reason:
        return broken_off(address, text, correlation_id)
    fields: list[Violation] = []
    remedy, retry_after = "", None
    bad, said = error_details_pb2.BadRequest(), error_details_pb2.LocalizedMessage()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(bad):
            fields += [Violation(each.field, each.description) for each in bad.field_violations]
        elif detail.Unpack(said):
            remedy = said.message
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        remedy = _UNKNOWN_CALLER  # The server speaks of headers, which are not for callers of this.
    return _kind(error.code())(
        status.message or text,
        reason=info.reason or _UNSPECIFIED,
        metadata=info.metadata,
        fields=tuple(fields),
        remedy=remedy,
        retry_after=retry_after,
        request_id=correlation_id,
    )


def _kind(code: grpc.StatusCode) -> type[CoveError]:
    return next((kind for kind in CoveError.__subclasses__() if kind.code is code), CoveError)


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    packed = error.trailing_metadata().get(_DETAILS_KEY)
    return status_pb2.Status.FromString(packed if isinstance(packed, bytes) else b"")


def _info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    """Cove's own word about the failure; empty if there is none."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == _DOMAIN:
            return info
    return error_details_pb2.ErrorInfo()


def _text(error: grpc.aio.AioRpcError, key: str) -> str:
    value = error.trailing_metadata().get(key) or error.initial_metadata().get(key)
    return value if isinstance(value, str) else ""
