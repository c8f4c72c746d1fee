"""Failures of git."""

import errno
import logging
from typing import Final

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.disk import DiskFull, full
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

_log = logging.getLogger(__name__)


class GitFailed(Exception):
    """A git command failed where it should not have: an error of ours or of the disk."""

    def __init__(self, command: str, code: int, errors: str) -> None:
        super().__init__(f"git {command} ended with {code}: {errors.strip()[-2000:]}")
        self.code = code
        self.errors = errors


# A file that became a device, or a directory, between git's looks at it.
_REPLACED: Final = "mmap failed: No such device"
_PROMISED: Final = ("from promisor remote", "lazy fetching disabled")
_NO_ROOM: Final = ("No space left on device", "Disk quota exceeded", "Out of diskspace")
# All that git says where it does not tell why a write failed.
_NOT_WRITTEN: Final = ("unable to write", "couldn't write")
_NO_MEMORY: Final = ("out of memory", "cannot allocate memory", "unable to create thread")


def failed(command: str, code: int, errors: str) -> Exception:
    """What it means that a command failed that should not have."""
    if is_out_of_memory(errors):
        return TooLarge(
            "git needs more memory for the files than it may have",
            command=command,
            remedy="Remove what is very large: a .gitignore, a .gitattributes, a file of text.",
        )
    if is_full(errors):
        return no_room(errors)
    if any(words in errors for words in _PROMISED):
        return left_out()
    if _REPLACED in errors:
        return TreeChanges("a file was replaced while git read it", command=command)
    return GitFailed(command, code, errors)


def no_room(errors: str) -> Exception:
    """Git could not write here."""
    _log.warning("git cannot write", extra={"fields": {"errors": errors.strip()[-2000:]}})
    lacking = full(errno.ENOSPC)
    assert lacking
    return lacking


def left_out() -> Exception:
    """What a filter left out is needed: it is not fetched behind anybody's back."""
    return RevisionNotFound(
        "contents are needed that were left out when the workspace was made",
        remedy="Use a workspace without a filter, which has all contents.",
    )


def is_full(errors: str) -> bool:
    """Whether git, or an operation in a cell, ended as it could not write."""
    return any(words in errors for words in (*_NO_ROOM, *_NOT_WRITTEN))


def is_full_here(errors: str) -> bool:
    """As `is_full`, of a conversation with a remote, which may have no room of its own."""
    own = (line for line in errors.splitlines() if not line.startswith("remote:"))
    return any(words in line for line in own for words in _NO_ROOM)


def is_out_of_memory(errors: str) -> bool:
    """Whether git ended, by its own words, because its cell's memory is bounded."""
    return any(words in errors.lower() for words in _NO_MEMORY)


def is_of_room(error: BaseException) -> bool:
    """Whether something failed, here or in a cell, as no space is left on the disk."""
    if isinstance(error, OSError) and full(error.errno):
        return True
    said = error.errors if isinstance(error, GitFailed) else ""
    return isinstance(error, DiskFull) or is_full(said)


class CellUnavailable(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_SANDBOX_UNAVAILABLE


class CellLost(Unavailable):
    """The cell of a command or an operation ended before it did. Reads may just be repeated."""

    def __init__(self, message: str, *, command: str = "") -> None:
        super().__init__(message, service="git")
        if command:
            self.metadata["command"] = command


class GitTimedOut(ResourceExhausted):
    """A command took longer than it may."""

    reason = ErrorReason.ERROR_REASON_WORKTREE_TOO_LARGE


class OutputTooLarge(ResourceExhausted):
    """A command answered more than is kept in memory."""

    reason = ErrorReason.ERROR_REASON_WORKTREE_TOO_LARGE


class TooLarge(ResourceExhausted):
    """A command came upon files that do not fit into its memory."""

    reason = ErrorReason.ERROR_REASON_WORKTREE_TOO_LARGE


class NoUid(ResourceExhausted):
    """Every uid that sandboxes may have is another tenant's."""

    reason = ErrorReason.ERROR_REASON_SANDBOX_UNAVAILABLE


class RepositoryNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_REPOSITORY_NOT_FOUND


class AccessDenied(PermissionDenied):
    reason = ErrorReason.ERROR_REASON_REPOSITORY_ACCESS_DENIED


class RemoteForbidden(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_REMOTE_FORBIDDEN


class RevisionNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_REVISION_NOT_FOUND


class ShallowRefused(FailedPrecondition):
    """The remote cannot give a part of its history; asked for all of it, it can."""

    reason = ErrorReason.ERROR_REASON_CAPABILITY_MISSING


class PathForbidden(FailedPrecondition):
    """A commit holds a path that no checkout may have, such as one below `.git`."""

    reason = ErrorReason.ERROR_REASON_PATH_OUTSIDE


class RepositoryTooLarge(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_REPOSITORY_TOO_LARGE


class RemoteUnavailable(Unavailable):
    reason = ErrorReason.ERROR_REASON_REMOTE_UNAVAILABLE


class CommitsMissing(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_COMMITS_MISSING


class CommitsInvalid(InvalidArgument):
    """What another node sent is not what git takes."""

    reason = ErrorReason.ERROR_REASON_COMMITS_INVALID


class UploadIncomplete(Aborted):
    reason = ErrorReason.ERROR_REASON_UPLOAD_INCOMPLETE


class WorktreeNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_WORKTREE_NOT_FOUND


class WorktreeExists(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_WORKTREE_EXISTS


class BranchInvalid(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_BRANCH_INVALID


class NothingToCommit(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_NOTHING_TO_COMMIT


class TreeChanges(Aborted):
    """A program changes the tree under git's hands."""

    reason = ErrorReason.ERROR_REASON_FILE_CHANGED


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


class ProvenanceNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_PROVENANCE_NOT_FOUND


class UnsavedWork(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_UNSAVED_WORK


class TooOld(FailedPrecondition):
    """A worktree of an earlier layout."""

    reason = ErrorReason.ERROR_REASON_WORKTREE_TOO_OLD


class Diverged(Aborted):
    reason = ErrorReason.ERROR_REASON_HEADS_DIVERGED


class InsideRejected(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_COMMITS_REFUSED


class MergeConflict(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_MERGE_CONFLICT


class UnrelatedHistories(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_UNRELATED_HISTORIES


class NotLinear(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_NOT_LINEAR


class GitTooOld(FailedPrecondition):
    """The git of this host cannot do it."""

    reason = ErrorReason.ERROR_REASON_CAPABILITY_MISSING


class InUse(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_WORKTREE_IN_USE


class SnapshotNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_SNAPSHOT_NOT_FOUND


class SnapshotExists(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_SNAPSHOT_EXISTS
