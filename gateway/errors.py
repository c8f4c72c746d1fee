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
    Unavailable,
)
from servicekit.status import InternalFailure

_SOON: Final = timedelta(seconds=1)


class OwnFault(InternalFailure):
    """A tool refused what the gateway made itself. The caller gets INTERNAL."""


class NodeUnavailable(Unavailable):
    reason = ErrorReason.ERROR_REASON_NODE_UNAVAILABLE


class SandboxEnded(Unavailable):
    """It was started for the call, and was killed before that reached it."""

    reason = ErrorReason.ERROR_REASON_AGENT_UNAVAILABLE

    def __init__(self, name: str) -> None:
        super().__init__("the sandbox ended just then", retry_after=_SOON, name=name)


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


class WorkspaceSuspended(FailedPrecondition):
    """A caller suspended it: only ResumeWorkspace ends that."""

    reason = ErrorReason.ERROR_REASON_WORKSPACE_SUSPENDED

    def __init__(self, name: str) -> None:
        super().__init__(
            "the workspace is suspended",
            preconditions=[Precondition("STATE", name, "it is SUSPENDED")],
            name=name,
        )


class WorkspaceBusy(FailedPrecondition):
    """`executions` are ids of what runs; there may be processes that are of none of them."""

    reason = ErrorReason.ERROR_REASON_WORKSPACE_BUSY

    def __init__(self, name: str, executions: list[str]) -> None:
        super().__init__(
            "something runs in the workspace",
            preconditions=[Precondition("RUNNING", name, ", ".join(executions) or "a process")],
            name=name,
            executions=",".join(executions),
        )


class SnapshotNotFound(NotFound):
    reason = ErrorReason.ERROR_REASON_SNAPSHOT_NOT_FOUND

    def __init__(self, snapshot_id: str) -> None:
        super().__init__("there is no such snapshot", snapshot=snapshot_id)


class OperationInProgress(Aborted):
    """Somebody else is at it, and does not end."""

    reason = ErrorReason.ERROR_REASON_OPERATION_IN_PROGRESS

    def __init__(self, environment: Environment) -> None:
        super().__init__(
            "another operation is going on",
            operation=Environment.Operation.Name(environment.operation),
            holder=environment.operation_holder,
            retry_after=timedelta(seconds=1),
        )


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
