"""Failures, in words that a model can act on."""

from collections.abc import Mapping
from typing import Final

from cove.cli.console import printable
from cove.mcp.remotes import HOSTS, PASSWORD, USERNAME
from cove.status import CoveError, InvalidArgument, Violation

_PREFIX: Final = "ERROR_REASON_"
_LONGEST: Final = 2000
_MOST_LINES: Final = 50

_REMEDIES: Final[Mapping[str, str]] = {
    "WORKSPACE_NOT_FOUND": "workspace_list shows the workspaces there are.",
    "WORKSPACE_EXISTS": "Choose another id, or use the workspace that is there: workspace_status.",
    "WORKSPACE_NOT_READY": "workspace_status tells its state: wait while it is pending; "
    "workspace_undelete brings back a deleted one.",
    "WORKSPACE_SUSPENDED": "A person suspended it, and can resume it: `cove resume ID`. "
    "Use another workspace meanwhile.",
    "EXECUTION_NOT_FOUND": "workspace_executions shows the executions there are.",
    "EXECUTION_EXISTS": "Choose another execution id, or read that one with workspace_output.",
    "EXECUTION_ENDED": "It has ended already; workspace_output has its output.",
    "OFFSET_OUT_OF_RANGE": "Use an offset that an answer gave as next_offset, or start at 0.",
    "FILE_NOT_FOUND": "Check the path, which is relative to the root of the workspace; "
    "workspace_list_files shows what there is.",
    "FILE_EXISTS": "Choose another path, or leave out must_not_exist to replace the file.",
    "FILE_CHANGED": "Somebody changed it: workspace_read it again, then repeat the change.",
    "WRONG_FILE_TYPE": "workspace_read takes files, workspace_list_files takes directories.",
    "NOTHING_TO_COMMIT": "workspace_status shows what differs; ignored files are not committed.",
    "HEAD_MOVED": "workspace_log shows the head of the branch now.",
    "NO_REMOTE": "It was made of no repository. A person can push it: `cove push --remote URL`.",
    "NON_FAST_FORWARD": "The branch there has commits that this one has not: push to another "
    "branch.",
    "REPOSITORY_ACCESS_DENIED": "Do not ask for a password. Whoever runs `cove mcp` sets "
    f"{USERNAME}, {PASSWORD} and, to say which hosts may be sent them, {HOSTS}.",
    "CWD_NOT_FOUND": "Name a directory that exists in the workspace; workspace_list_files shows.",
}
"""Where the gateway's own word is not of this server's tools. By reason, without prefix."""


def told(error: CoveError) -> str:
    """All that is known of a failure, a line each."""
    reason = error.reason.removeprefix(_PREFIX)
    lines = [f"error: {error.message}", f"code: {error.code.name}"]
    if reason != "UNSPECIFIED":
        lines.append(f"reason: {reason}")
    lines += [f"field: {each.field}: {each.problem}" for each in error.fields]
    lines += [
        f"{name}: {value}"
        for name, value in error.metadata.items()
        if value not in ("", error.request_id)
    ]
    if error.retry_after:
        lines.append(f"retry after: {error.retry_after:g} s")
    if error.request_id:
        lines.append(f"request id: {error.request_id}")
    lines = lines[:_MOST_LINES]
    if remedy := _REMEDIES.get(reason) or error.remedy:
        lines.append(f"remedy: {remedy}")
    return "\n".join(printable(line[:_LONGEST]) for line in lines)


def wrong(field: str, problem: str) -> InvalidArgument:
    """An argument that fits the schema, and yet makes no sense."""
    return InvalidArgument(
        "the arguments make no sense",
        reason="ERROR_REASON_INVALID_FIELD",
        fields=(Violation(field, problem),),
        remedy="Correct this field, then call again.",
    )
