"""Failures of the executor."""

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)


class HandleInvalid(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_HANDLE_INVALID


class HandleStale(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_HANDLE_STALE


class EnvironmentDormant(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_ENVIRONMENT_DORMANT


class AgentUnavailable(Unavailable):
    reason = ErrorReason.ERROR_REASON_AGENT_UNAVAILABLE


class AgentTooOld(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_AGENT_TOO_OLD


class CapabilityMissing(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_CAPABILITY_MISSING


class ExecutionNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_EXECUTION_NOT_FOUND


class ExecutionExists(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_EXECUTION_EXISTS


class ExecutionEnded(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_EXECUTION_ENDED


class ExecutionRunning(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_EXECUTION_RUNNING


class OffsetOutOfRange(OutOfRange):
    reason = ErrorReason.ERROR_REASON_OFFSET_OUT_OF_RANGE


class ProgramNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_PROGRAM_NOT_FOUND


class ProgramNotExecutable(PermissionDenied):
    reason = ErrorReason.ERROR_REASON_PROGRAM_NOT_EXECUTABLE


class CwdNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_CWD_NOT_FOUND


class ProcessLimit(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_PROCESS_LIMIT


class InputNotOpen(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_INPUT_NOT_OPEN


class InputClosed(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_INPUT_CLOSED


class InputGap(OutOfRange):
    reason = ErrorReason.ERROR_REASON_INPUT_GAP


class InputHeld(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_INPUT_HELD


class TerminalNotOpen(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_TERMINAL_NOT_OPEN


class FileNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_FILE_NOT_FOUND


class PathOutside(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_PATH_OUTSIDE


class PathTooLong(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_PATH_TOO_LONG


class WrongFileType(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_WRONG_FILE_TYPE


class FileExists(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_FILE_EXISTS


class DirectoryNotEmpty(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_DIRECTORY_NOT_EMPTY


class FileChanged(Aborted):
    reason = ErrorReason.ERROR_REASON_FILE_CHANGED


class UploadIncomplete(Aborted):
    reason = ErrorReason.ERROR_REASON_UPLOAD_INCOMPLETE


class FilePermission(PermissionDenied):
    reason = ErrorReason.ERROR_REASON_FILE_PERMISSION


class NoSpace(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_NO_SPACE


class ArchiveInvalid(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_ARCHIVE_INVALID


class ArchiveTooLarge(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_ARCHIVE_TOO_LARGE


class WatchLimit(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_WATCH_LIMIT


class PortNotListening(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_PORT_NOT_LISTENING


class PortLimit(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_PORT_LIMIT


class PortReset(Aborted):
    reason = ErrorReason.ERROR_REASON_PORT_RESET


class SecretNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_SECRET_NOT_FOUND


class SecretsUnprotected(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_SECRETS_UNPROTECTED
