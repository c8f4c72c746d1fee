"""Failures as HTTP tells them: a status code, and google.rpc.Status as JSON."""

import base64
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import grpc
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.errors import InvalidArgument, NotFound, Unavailable, Violation
from servicekit.status import reason_of, to_status, told, untold

_CANCELLED: Final = 499  # nginx's: the client has left.
_RETRY_AFTER: Final = 5  # Seconds, where a limit is reached and nobody knows until when.
_CODES: Final[Mapping[grpc.StatusCode, int]] = {
    grpc.StatusCode.OK: HTTPStatus.OK,
    grpc.StatusCode.CANCELLED: _CANCELLED,
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}
_BY_NUMBER: Final = {code.value[0]: http for code, http in _CODES.items()}
_LOST: Final = frozenset(
    {
        ErrorReason.ERROR_REASON_ETAG_MISMATCH,
        ErrorReason.ERROR_REASON_FILE_CHANGED,
        ErrorReason.ERROR_REASON_FILE_EXISTS,
    }
)


_TOO_LARGE: Final = frozenset(
    {
        ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE,
        ErrorReason.ERROR_REASON_ARCHIVE_TOO_LARGE,
        ErrorReason.ERROR_REASON_REPOSITORY_TOO_LARGE,
        ErrorReason.ERROR_REASON_WORKTREE_TOO_LARGE,
    }
)
"""No room will help."""


class RouteNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_ROUTE_NOT_FOUND


class MethodNotAllowed(RouteNotFound):
    """The path is there, for other methods."""

    def __init__(self, path: str, allowed: Sequence[str]) -> None:
        super().__init__("this path has no such method", path=path)
        self.allowed = ", ".join(allowed)


class UpgradeRequired(RouteNotFound):
    """The path is there, for WebSockets."""

    def __init__(self, path: str) -> None:
        super().__init__("this path is for WebSockets", path=path)


class MalformedJson(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_MALFORMED_JSON

    def __init__(self, problem: str) -> None:
        super().__init__("", problem, violations=[Violation("body", problem)])


class RangeNotSatisfiable(InvalidArgument):
    """The Range asked for lies beyond the file. `size` in bytes."""

    def __init__(self, size: str) -> None:
        super().__init__("Range", "beyond the end of the file")
        self.size = size


class ShuttingDown(Unavailable):
    reason = ErrorReason.ERROR_REASON_SHUTTING_DOWN


def invalid(violations: Sequence[Violation]) -> InvalidArgument:
    """One failure for all that is wrong."""
    first = violations[0]
    return InvalidArgument(first.field, first.problem, violations=violations)


def status_of(error: BaseException) -> status_pb2.Status:
    """What the caller is told of `error`, as over gRPC."""
    if isinstance(error, grpc.aio.AioRpcError):
        return told(error) or to_status(untold(error, "gateway"))
    return to_status(error)


def answer_to(
    error: BaseException, *, conditional: bool
) -> tuple[int, Sequence[tuple[str, str]], status_pb2.Status]:
    """Code, headers and body that tell of `error`. `conditional`: the request had If-Match."""
    status = status_of(error)
    headers: list[tuple[str, str]] = []
    code = code_of(status, conditional=conditional)
    if isinstance(error, MethodNotAllowed):
        code = HTTPStatus.METHOD_NOT_ALLOWED
        headers.append(("allow", error.allowed))
    elif isinstance(error, UpgradeRequired):
        code = HTTPStatus.UPGRADE_REQUIRED
        headers += [("upgrade", "websocket"), ("connection", "upgrade")]
    elif isinstance(error, RangeNotSatisfiable):
        code = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        headers.append(("content-range", f"bytes */{error.size}"))
    if code == HTTPStatus.UNAUTHORIZED:
        headers.append(("www-authenticate", "Bearer"))
    after = _retry_after(status)
    if code == HTTPStatus.TOO_MANY_REQUESTS:
        after = after or _RETRY_AFTER
    if after is not None:
        headers.append(("retry-after", str(after)))
    return int(code), headers, status


def code_of(status: status_pb2.Status, *, conditional: bool) -> int:
    """How HTTP says `status`. `conditional`: the request had If-Match."""
    reason = reason_of(status)
    if reason in _TOO_LARGE:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if conditional and reason in _LOST:
        return HTTPStatus.PRECONDITION_FAILED
    return _BY_NUMBER.get(status.code, HTTPStatus.INTERNAL_SERVER_ERROR)


def metadata_of(status: status_pb2.Status) -> Mapping[str, str]:
    """The facts beside the reason."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return dict(info.metadata)
    return {}


def fields_of(status: status_pb2.Status) -> list[str]:
    """The fields that are wrong."""
    bad = error_details_pb2.BadRequest()
    return [
        violation.field
        for detail in status.details
        if detail.Unpack(bad)
        for violation in bad.field_violations
    ]


def status_json(status: status_pb2.Status) -> dict[str, Any]:
    """A detail of a type that is not known here stays as its bytes."""
    return {
        "code": status.code,
        "message": status.message,
        "details": [_detail(detail) for detail in status.details],
    }


def _detail(detail: AnyMessage) -> dict[str, Any]:
    try:
        return json_format.MessageToDict(detail)
    except TypeError:
        value = base64.b64encode(detail.value).decode()
        return {"@type": detail.type_url, "value": value}


def _retry_after(status: status_pb2.Status) -> int | None:
    info = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            seconds: float = info.retry_delay.ToTimedelta().total_seconds()
            return max(1, math.ceil(seconds))
    return None
