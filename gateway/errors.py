"""Failures of the gateway."""

from datetime import timedelta
from typing import Final

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.registry.v1.registry_pb2 import Environment
from servicekit.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Precondition,
)

_SOON: Final = timedelta(seconds=1)


class OwnFault(Exception):
    """A tool refused what the gateway made itself. The caller gets INTERNAL."""


class WorkspaceNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_WORKSPACE_NOT_FOUND

    def __init__(self, name: str) -> None:
        super().__init__("no such workspace", name=name)


class WorkspaceExists(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_WORKSPACE_EXISTS

    def __init__(self, name: str) -> None:
        super().__init__("the workspace id is taken", name=name)


class WorkspaceNotReady(FailedPrecondition):
    """`remedy` is what to do about a workspace that waiting alone does not make ready."""

    reason = ErrorReason.ERROR_REASON_WORKSPACE_NOT_READY

    def __init__(self, name: str, state: str, remedy: str = "") -> None:
        super().__init__(
            "the workspace's state forbids this",
            remedy=remedy,
            preconditions=[Precondition("STATE", name, f"it is {state}")],
            name=name,
            state=state,
        )


class SnapshotNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_SNAPSHOT_NOT_FOUND

    def __init__(self, snapshot_id: str) -> None:
        super().__init__("there is no such snapshot", snapshot=snapshot_id)


class CreateFailed(Aborted):
    reason = ErrorReason.ERROR_REASON_CREATE_FAILED


class StillUndone(Aborted):
    """What the same request made before is still being taken down."""

    reason = ErrorReason.ERROR_REASON_OPERATION_IN_PROGRESS

    def __init__(self, environment: Environment, name: str) -> None:
        super().__init__(
            "what this request made before is still being undone",
            remedy="Repeat the call with the same request id.",
            retry_after=_SOON,
            name=name,
            operation=Environment.Operation.Name(environment.operation),
            holder=environment.operation_holder,
        )


class LeaseLost(Aborted):
    """Another gateway has taken the operation over, and will end it."""

    reason = ErrorReason.ERROR_REASON_LEASE_LOST


class FieldImmutable(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_FIELD_IMMUTABLE

    def __init__(self, path: str) -> None:
        super().__init__("update_mask", "names a field that cannot be updated")
        self.metadata["field"] = path
