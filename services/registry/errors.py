"""Failures of the registry."""

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.config import ConfigError
from servicekit.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    Unavailable,
)


class StartError(ConfigError):
    """The registry cannot start on this database. The message says what to do."""


class EnvironmentNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_ENVIRONMENT_NOT_FOUND


class EnvironmentExists(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_ENVIRONMENT_EXISTS


class RequestIdReused(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_REQUEST_ID_REUSED


class EtagMismatch(Aborted):
    reason = ErrorReason.ERROR_REASON_ETAG_MISMATCH


class LeaseLost(Aborted):
    reason = ErrorReason.ERROR_REASON_LEASE_LOST


class OperationInProgress(Aborted):
    reason = ErrorReason.ERROR_REASON_OPERATION_IN_PROGRESS


class TransitionForbidden(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_TRANSITION_FORBIDDEN

    def __init__(self, before: str, after: str) -> None:
        super().__init__("the table of states has no such transition")
        self.metadata.update({"from": before, "to": after})


class FieldImmutable(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_FIELD_IMMUTABLE

    def __init__(self, path: str) -> None:
        super().__init__("update_mask", "names a field that cannot be updated")
        self.metadata["field"] = path


class RevisionCompacted(OutOfRange):
    reason = ErrorReason.ERROR_REASON_REVISION_COMPACTED


class RevisionInFuture(OutOfRange):
    reason = ErrorReason.ERROR_REASON_REVISION_IN_FUTURE


class WatcherTooSlow(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_WATCHER_TOO_SLOW


class DocumentTooLarge(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE


class DiskFull(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_DISK_FULL


class ShuttingDown(Unavailable):
    reason = ErrorReason.ERROR_REASON_SHUTTING_DOWN


class DatabaseUnavailable(Unavailable):
    reason = ErrorReason.ERROR_REASON_DATABASE_UNAVAILABLE
