"""Isolated, git-backed workspaces over gRPC.

`from cove import Client` is the async client, `from cove.sync import Client` the blocking one;
`cove.<x>.v1` are the stubs. A name is imported when it is asked for, so that the stubs load
without the client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cove.client import Client as Client
    from cove.executions import Execution as Execution
    from cove.executor.v1.executor_pb2 import Chunk as Chunk
    from cove.executor.v1.executor_pb2 import ExecutionLimits as ExecutionLimits
    from cove.executor.v1.executor_pb2 import Exit as Exit
    from cove.executor.v1.executor_pb2 import Gap as Gap
    from cove.executor.v1.executor_pb2 import Preview as Preview
    from cove.executor.v1.executor_pb2 import UsageSample as UsageSample
    from cove.git.v1.git_pb2 import DiffEnd as DiffEnd
    from cove.git.v1.git_pb2 import DiffFile as DiffFile
    from cove.git.v1.git_pb2 import DiffPatch as DiffPatch
    from cove.result import CommandFailed as CommandFailed
    from cove.result import Result as Result
    from cove.result import exit_status as exit_status
    from cove.status import Aborted as Aborted
    from cove.status import AlreadyExists as AlreadyExists
    from cove.status import CoveError as CoveError
    from cove.status import DeadlineExceeded as DeadlineExceeded
    from cove.status import FailedPrecondition as FailedPrecondition
    from cove.status import Internal as Internal
    from cove.status import InvalidArgument as InvalidArgument
    from cove.status import NotFound as NotFound
    from cove.status import OutOfRange as OutOfRange
    from cove.status import PermissionDenied as PermissionDenied
    from cove.status import ResourceExhausted as ResourceExhausted
    from cove.status import Unauthenticated as Unauthenticated
    from cove.status import Unavailable as Unavailable
    from cove.workspace import Workspace as Workspace

_NAMES: Final = {
    "cove.client": ("Client",),
    "cove.executions": ("Execution",),
    "cove.executor.v1.executor_pb2": (
        "Chunk", "ExecutionLimits", "Exit", "Gap", "Preview", "UsageSample",
    ),
    "cove.git.v1.git_pb2": ("DiffEnd", "DiffFile", "DiffPatch"),
    "cove.result": ("CommandFailed", "Result", "exit_status"),
    "cove.status": (
        "Aborted", "AlreadyExists", "CoveError", "DeadlineExceeded", "FailedPrecondition",
        "Internal", "InvalidArgument", "NotFound", "OutOfRange", "PermissionDenied",
        "ResourceExhausted", "Unauthenticated", "Unavailable",
    ),
    "cove.workspace": ("Workspace",),
}  # fmt: skip

if not TYPE_CHECKING:  # A type checker would believe that every name is here.

    def __getattr__(name: str) -> Any:
        for module, names in _NAMES.items():
            if name in names:
                return getattr(import_module(module), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *(name for names in _NAMES.values() for name in names)])
