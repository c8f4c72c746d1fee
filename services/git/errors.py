"""Failures of git."""

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)


class GitFailed(Exception):
    """A git command failed where it should not have: an error of ours or of the disk."""

    def __init__(self, command: str, code: int, errors: str) -> None:
        super().__init__(f"git {command} ended with {code}: {errors.strip()[-2000:]}")
        self.code = code
        self.errors = errors


class CellUnavailable(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_SANDBOX_UNAVAILABLE


class GitTimedOut(ResourceExhausted):
    """A command took longer than it may."""


class OutputTooLarge(ResourceExhausted):
    """A command answered more than is kept in memory."""


class RepositoryNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_REPOSITORY_NOT_FOUND


class AccessDenied(PermissionDenied):
    reason = ErrorReason.ERROR_REASON_REPOSITORY_ACCESS_DENIED


class RemoteForbidden(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_REMOTE_FORBIDDEN


class RevisionNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_REVISION_NOT_FOUND


class RepositoryTooLarge(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_REPOSITORY_TOO_LARGE


class RemoteUnavailable(Unavailable):
    reason = ErrorReason.ERROR_REASON_REMOTE_UNAVAILABLE


class WorktreeNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_WORKTREE_NOT_FOUND


class WorktreeExists(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_WORKTREE_EXISTS


class BranchInvalid(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_BRANCH_INVALID


class NothingToCommit(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_NOTHING_TO_COMMIT


class HeadMoved(Aborted):
    reason = ErrorReason.ERROR_REASON_HEAD_MOVED


class NonFastForward(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_NON_FAST_FORWARD


class BranchCheckedOut(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_BRANCH_CHECKED_OUT


class PushRejected(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_PUSH_REJECTED


class NoRemote(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_NO_REMOTE


class BranchExists(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_BRANCH_EXISTS


class UnsavedWork(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_UNSAVED_WORK
