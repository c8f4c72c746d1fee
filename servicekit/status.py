"""Turns failures into gRPC statuses. The only module that knows both."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

import grpc
from google.rpc import error_details_pb2, status_pb2

from cove.ended import WRITE_FAILED
from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit import calls, disk, errors
from servicekit.remedies import remedy

_log = logging.getLogger(__name__)

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

DOMAIN: Final = "cove"
_PREFIX: Final = "ERROR_REASON_"
DETAILS_KEY: Final = "grpc-status-details-bin"
_TRAILERS: Final = 7 << 10
"""Bytes from which on a failure is told shorter: gRPC's clients refuse trailers of 8 KiB now and
then, of 16 KiB always, with the reason that is in them."""
_TEXT: Final = 400
"""Bytes of each text then."""
_FIELDS: Final = 3000
"""Bytes after which no more fields are named."""
_RETRY_SOON: Final = timedelta(seconds=1)
_TOO_LARGE: Final = "larger than max"  # What gRPC itself says of a message over its limit.

CODES: Final[Mapping[type[errors.ServiceError], grpc.StatusCode]] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class MessageTooLarge(errors.ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE


class ShuttingDown(errors.Unavailable):
    reason = ErrorReason.ERROR_REASON_SHUTTING_DOWN


class InternalFailure(errors.ServiceError):
    """Tells the caller nothing but the correlation id; whoever makes one logs why."""

    reason = ErrorReason.ERROR_REASON_INTERNAL

    def __init__(self) -> None:
        super().__init__("internal error", request_id=calls.current().correlation_id)


class OlderService(InternalFailure):
    """The service that was called has no such RPC yet."""


def to_status(error: BaseException) -> status_pb2.Status:
    """What a caller is told of `error`, whatever it is. Logs what the caller is not told."""
    if isinstance(error, errors.ServiceError):
        return _of_service_error(error)
    if isinstance(error, grpc.aio.AioRpcError):
        return _relayed(error)
    if isinstance(error, OSError) and (lacking := disk.full(error.errno)):
        return _of_service_error(lacking)
    _log.error("unexpected error", exc_info=error)
    return _internal()


def reason(error: BaseException) -> ErrorReason.ValueType:
    """Why it failed; unspecified when nothing we know is said."""
    if isinstance(error, errors.ServiceError):
        return error.reason
    if isinstance(error, grpc.aio.AioRpcError) and (status := told(error)):
        return reason_of(status)
    return ErrorReason.ERROR_REASON_UNSPECIFIED


def reason_of(status: status_pb2.Status) -> ErrorReason.ValueType:
    """The reason in a status; unspecified when it has none we know."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == DOMAIN:
            known = ErrorReason.DESCRIPTOR.values_by_name.get(info.reason)
            return ErrorReason.Value(known.name) if known else ErrorReason.ERROR_REASON_UNSPECIFIED
    return ErrorReason.ERROR_REASON_UNSPECIFIED


def reason_name(status: status_pb2.Status) -> str:
    """As it is logged: without the prefix."""
    return ErrorReason.Name(reason_of(status)).removeprefix(_PREFIX)


def code_and_reason(error: Exception) -> tuple[str, str]:
    """Their names, the reason's without its prefix: how a log names a failure."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code().name, ErrorReason.Name(reason(error)).removeprefix(_PREFIX)
    status = to_status(error)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return code.name, reason_name(status)


def told(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """The whole status that a service of Cove sent with its failure; None: it sent none."""
    packed = error.trailing_metadata().get(DETAILS_KEY)
    if not isinstance(packed, bytes):
        return None
    status = status_pb2.Status.FromString(packed)
    info = error_details_pb2.ErrorInfo()
    ours = any(detail.Unpack(info) and info.domain == DOMAIN for detail in status.details)
    return status if ours else None


def away(service: str) -> errors.Unavailable:
    """`service` broke off, or cannot be reached."""
    return errors.Unavailable(
        "a service behind this one is away", retry_after=_RETRY_SOON, service=service
    )


def untold(error: grpc.aio.AioRpcError, service: str) -> errors.ServiceError:
    """What a failure means that gRPC made itself, when calling `service`."""
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded("the deadline passed", service=service)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in text:
        return MessageTooLarge("the message is too large", service=service)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or text == WRITE_FAILED:
        return away(service)
    _log.error("%s answered %s without a reason: %s", service, code.name, text)
    return OlderService() if code is grpc.StatusCode.UNIMPLEMENTED else InternalFailure()


def _of_service_error(error: errors.ServiceError) -> status_pb2.Status:
    status = _packed(error, lambda text: text)
    size = status.ByteSize() * 4 // 3 + 3 * len(status.message)
    return status if size < _TRAILERS else _packed(error, _cut)


def _packed(error: errors.ServiceError, cut: Callable[[str], str]) -> status_pb2.Status:
    code = next(
        (CODES[kind] for kind in type(error).__mro__ if kind in CODES), grpc.StatusCode.INTERNAL
    )
    name = ErrorReason.Name(error.reason)
    status = status_pb2.Status(code=code.value[0], message=cut(error.message))

    def add(detail: Any) -> None:
        status.details.add().Pack(detail)

    metadata = {key: cut(value) for key, value in error.metadata.items()}
    add(error_details_pb2.ErrorInfo(reason=name, domain=DOMAIN, metadata=metadata))
    if error.violations:
        add(_bad_request(error.violations, cut))
    if error.preconditions:
        failed = error_details_pb2.PreconditionFailure()
        for each in error.preconditions:
            failed.violations.add(
                type=each.kind, subject=cut(each.subject), description=cut(each.description)
            )
        add(failed)
    if error.quotas:
        quota = error_details_pb2.QuotaFailure()
        for limit in error.quotas:
            quota.violations.add(
                subject=cut(limit.subject),
                description=cut(limit.description),
                quota_metric=limit.metric,
                quota_value=limit.value,
            )
        add(quota)
    retry_after = error.retry_after
    if retry_after is None and isinstance(error, errors.Unavailable):
        retry_after = _RETRY_SOON
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(retry_after)
        add(retry)
    if text := error.remedy or remedy(name):
        add(error_details_pb2.LocalizedMessage(locale="en", message=text))
    return status


def _bad_request(
    violations: Sequence[errors.Violation], cut: Callable[[str], str]
) -> error_details_pb2.BadRequest:
    """All that fit, and how many do not."""
    bad = error_details_pb2.BadRequest()
    for number, each in enumerate(violations):
        if bad.ByteSize() > _FIELDS:
            bad.field_violations.add(description=f"and {len(violations) - number} more")
            break
        bad.field_violations.add(field=cut(each.field), description=cut(each.problem))
    return bad


def _cut(text: str) -> str:
    """So much of a text that a status of some fits into the trailers of a call."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= _TEXT else f"{data[:_TEXT].decode('utf-8', 'ignore')}…"


def _relayed(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """What a service behind this one said, whole, unless that is about our own call."""
    status = told(error)
    if status is None:
        return _of_service_error(untold(error, "unknown"))
    if status.code == grpc.StatusCode.UNAUTHENTICATED.value[0]:
        _log.error("a service behind this one does not know us: %s", status.message)
        return _internal()
    return status


def _internal() -> status_pb2.Status:
    return _of_service_error(InternalFailure())
