"""What to do about a failure with this command line, where that differs from any other client."""

from collections.abc import Mapping
from typing import Final

_REMEDIES: Final[Mapping[str, str]] = {
    "WORKSPACE_NOT_FOUND": "`cove ls --all` lists the workspaces there are.",
    "WORKSPACE_EXISTS": "Choose another --id; `cove show {workspace}` shows the one that is there.",
    "EXECUTION_NOT_FOUND": "`cove ps {workspace}` lists the executions there are.",
    "EXECUTION_ENDED": "`cove logs {workspace} {execution}` has its output.",
    "INPUT_HELD": "`cove attach --read-only {workspace} {execution}` looks on; --take-over takes "
    "the keys.",
    "NO_REMOTE": "Name a repository to push to with --remote.",
    "REPOSITORY_ACCESS_DENIED": "Give credentials: --username with --password-stdin, or --ssh-key.",
}
"""By name of the reason, without `ERROR_REASON_`."""


def of(reason: str, metadata: Mapping[str, str]) -> str:
    """Empty: the gateway's own word will do."""
    found = _REMEDIES.get(reason.removeprefix("ERROR_REASON_"), "")
    _, _, name = metadata.get("name", "").partition("workspaces/")
    workspace, _, execution = name.partition("/executions/")
    if ("{workspace}" in found and not workspace) or ("{execution}" in found and not execution):
        return ""
    return found.format(workspace=workspace, execution=execution)
