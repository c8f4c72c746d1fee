"""What lists and watches of workspaces, and lists of executions, are filtered by: docs/filters.md.

The registry and the executor filter; here an expression is checked against what callers can
name, and put into their words.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from cove.executor.v1.executor_pb2 import Execution
from cove.gateway.v1.gateway_pb2 import Workspace
from gateway.names import EXECUTIONS, WORKSPACES
from servicekit.filters.fields import Fields
from servicekit.filters.filters import Filter
from servicekit.filters.syntax import And, Comparison, Expression, Not, Or, text_of

FIELDS: Final = Fields(
    Workspace.DESCRIPTOR,
    (
        *("name", "uid", "creator", "labels", "state", "branch", "driver"),
        *("create_time", "update_time", "delete_time", "purge_time", "resolved_time"),
        *("base_commit", "head_commit", "warnings", "failure", "failure.reason"),
        *("progress", "progress.phase"),
        *("spec.repository", "spec.revision", "spec.branch", "spec.driver", "spec.depth"),
        *("spec.filter", "spec.network", "spec.limits.memory_bytes", "spec.limits.processes"),
        *("spec.limits.milli_cpus", "spec.limits.disk_bytes", "spec.limits.open_files"),
    ),
    collection=WORKSPACES,
)
_RECORDED: Final[Mapping[str, str]] = {
    "branch": "worktree.branch",
    "base_commit": "worktree.base_commit",
    "resolved_time": "worktree.resolved_time",
}
"""Fields that have another name in the record."""
EXECUTION_FIELDS: Final = (
    *("name", "state", "create_time", "start_time", "output_bytes", "input_bytes", "input_closed"),
    *("spec.argv", "spec.script", "spec.cwd", "exit", "exit.code", "exit.signal"),
    *("exit.signal.number", "exit.timed_out", "exit.limit", "exit.cancelled", "exit.lost"),
    *("exit.end_time", "exit.cpu_time", "exit.peak_memory_bytes"),
)
"""Fields of executions; the executor has the same."""


def recorded(filter: str) -> str:  # noqa: A002 - the contract's word.
    """The filter as the registry takes it. Raises `FilterInvalid`."""
    expression = Filter(filter, FIELDS).expression
    return text_of(_reworded(expression, WORKSPACES, _RECORDED)) if expression else ""


def executed(filter: str, workspace: str) -> str:  # noqa: A002 - the contract's word.
    """The filter of a list of its executions, as the executor takes it. Raises `FilterInvalid`."""
    if not filter:
        return ""
    collection = f"{workspace}{EXECUTIONS}"
    fields = Fields(Execution.DESCRIPTOR, EXECUTION_FIELDS, collection=collection)
    expression = Filter(filter, fields).expression
    return text_of(_reworded(expression, collection, {})) if expression else ""


def _reworded(expression: Expression, collection: str, other: Mapping[str, str]) -> Expression:
    """With ids for names in the collection, which every service takes, and these other fields."""
    match expression:
        case Comparison(path, _, value):
            if path == ("name",):
                first, *rest = value.parts
                parts = (first.removeprefix(collection), *rest)
                return replace(expression, value=replace(value, parts=parts))
            known = other.get(".".join(path))
            return replace(expression, path=tuple(known.split("."))) if known else expression
        case And(terms):
            return And(tuple(_reworded(term, collection, other) for term in terms))
        case Or(terms):
            return Or(tuple(_reworded(term, collection, other) for term in terms))
        case Not(term):
            return Not(_reworded(term, collection, other))
