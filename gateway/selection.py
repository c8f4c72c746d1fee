"""What lists and watches of workspaces are filtered by: docs/filters.md.

The registry filters; here an expression is checked against what callers can name, and put
into the registry's words.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from cove.gateway.v1.gateway_pb2 import Workspace
from gateway.names import WORKSPACES
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


def recorded(filter: str) -> str:  # noqa: A002 - the contract's word.
    """The filter as the registry takes it. Raises `FilterInvalid`."""
    expression = Filter(filter, FIELDS).expression
    return text_of(_recorded(expression)) if expression else ""


def _recorded(expression: Expression) -> Expression:
    match expression:
        case Comparison(path, _, value):
            if path == ("name",):  # An id is a name to the registry, too.
                first, *rest = value.parts
                parts = (first.removeprefix(WORKSPACES), *rest)
                return replace(expression, value=replace(value, parts=parts))
            known = _RECORDED.get(".".join(path))
            return replace(expression, path=tuple(known.split("."))) if known else expression
        case And(terms):
            return And(tuple(map(_recorded, terms)))
        case Or(terms):
            return Or(tuple(map(_recorded, terms)))
        case Not(term):
            return Not(_recorded(term))
