"""What a caller can do about each reason. Sent with every failure, printed in docs/errors.md.

Words for a person or a model; a failure that knows better brings a remedy of its own.
"""

from collections.abc import Mapping
from typing import Final

_READ_AGAIN: Final = "Read the resource again, then repeat the change with what is current."
_WAIT: Final = (
    "Wait for the time given in RetryInfo, then repeat the call with the same request id."
)

REMEDIES: Final[Mapping[str, str]] = {
    "UNSPECIFIED": "Look at the status code, and for a newer client.",
    "INVALID_FIELD": "Correct the fields named in BadRequest, then call again.",
    "REQUEST_ID_REUSED": "Use a new request id for a new request; repeat an old id only unchanged.",
    "PAGE_TOKEN_INVALID": "Start the list again without a page token, and keep filter, order and "
    "parent the same between pages.",
    "UNAUTHENTICATED": "Send a valid token: `authorization: Bearer <token>`.",
    "PERMISSION_DENIED": "Use an identity with the role that the RPC needs.",
    "INTERNAL": "Repeat the call once; if it fails again, give the request id to the operator.",
    "SERVICE_UNAVAILABLE": _WAIT,
    "DEADLINE_EXCEEDED": "Read the resource to see how far the work came, or repeat the call with "
    "the same request id and a longer deadline.",
    "MESSAGE_TOO_LARGE": "Send less in one message, or use the streaming form of the call.",
    "MALFORMED_JSON": "Send a JSON object in the proto3 mapping of the request; unknown fields "
    "are refused.",
    "ROUTE_NOT_FOUND": "Check the path and the method; GET /openapi.json lists them.",
    "REQUEST_IN_PROGRESS": "Nothing: it is sent no more.",
    "DISK_FULL": "Delete workspaces or executions that are not needed, or have the operator add "
    "space.",
    "SHUTTING_DOWN": _WAIT,
    "SHARE_LIMITED": "Name the shared workspace, or use a token of the whole tenant.",
    "AUTHENTICATION_LIMIT": "Wait for the time given in RetryInfo; if your token is valid, find "
    "out who else behind your address sends ones that are not.",
    "RATE_LIMITED": f"{_WAIT} Call less often, or have the operator raise the limit.",
    "OVERLOADED": f"{_WAIT} Give it a longer deadline where that was short.",
    "DATABASE_UNAVAILABLE": "Retry with the same request id; if it lasts, have the operator look "
    "after the database.",
    "TOKEN_NOT_FOUND": "Check the name; list the tokens.",
    "TOKEN_EXISTS": "Choose another id.",
    "TOKEN_LIMIT": "Revoke tokens that are not needed.",
    "ENVIRONMENT_NOT_FOUND": "Check the name; it may have been deleted.",
    "ENVIRONMENT_EXISTS": "Choose another id, or use the environment that is there.",
    "ETAG_MISMATCH": _READ_AGAIN,
    "TRANSITION_FORBIDDEN": "Read the environment and wait for a state that allows this.",
    "OPERATION_IN_PROGRESS": "Wait for the operation to end, then retry.",
    "LEASE_LOST": "Read the workspace to see what has become of it, then call again if that still "
    "makes sense; who held a lease claims it again first.",
    "REVISION_COMPACTED": "Watch again without a revision: a snapshot comes first.",
    "REVISION_IN_FUTURE": "Watch from a revision that this registry has sent.",
    "WATCHER_TOO_SLOW": "Watch again from the last revision received.",
    "FILTER_INVALID": "Correct the filter at the position told, with what is allowed there.",
    "ORDER_INVALID": "Name fields that are allowed, apart by commas, each with ` desc` or without.",
    "FIELD_IMMUTABLE": "Take the field out of the update mask.",
    "QUOTA_EXCEEDED": "Delete what is not needed (`quota` says of what), wait as "
    "RetryInfo says, or have an administrator raise the quota.",
    "WORKSPACE_NOT_FOUND": "Check the name; list the workspaces to see what there is.",
    "WORKSPACE_EXISTS": "Choose another workspace id, or use the workspace that is there.",
    "WORKSPACE_NOT_READY": "Wait until the workspace is READY, then retry.",
    "WORKSPACE_SUSPENDED": "Resume the workspace, then retry.",
    "WORKSPACE_BUSY": "Wait until nothing runs in the workspace, or suspend it with force.",
    "ENVIRONMENT_STOPPED": "Reopen the environment, then activate it.",
    "CREATE_FAILED": "Read the cause, correct the spec, and create it with a new request id.",
    "WORKTREE_LOST": "Have the operator bring back the node's disk, then delete and undelete the "
    "workspace; or delete it, and create it anew.",
    "ENVIRONMENT_LOST": "Do what the message says, then delete and undelete the workspace: its "
    "work is kept.",
    "OPERATION_TIMED_OUT": "Do what the message says, then delete the workspace; work that is "
    "nowhere else is kept.",
    "REPOSITORY_NOT_FOUND": "Check the URL of the repository, and whether this host can reach it.",
    "REPOSITORY_ACCESS_DENIED": "Send credentials that may read (or push to) the repository.",
    "REMOTE_FORBIDDEN": "Use an https or ssh URL of a public address, or have the operator allow "
    "this one.",
    "REVISION_NOT_FOUND": "Name a branch, a tag or a commit id that the repository has.",
    "REPOSITORY_TOO_LARGE": "Use a smaller repository, or have the operator raise the limit.",
    "REMOTE_UNAVAILABLE": _WAIT,
    "WORKTREE_NOT_FOUND": "Check the uid; the worktree may have been removed.",
    "WORKTREE_EXISTS": "Remove the worktree first, or repeat the call with the first input.",
    "BRANCH_INVALID": "Choose a branch name that `git check-ref-format --branch` accepts.",
    "NOTHING_TO_COMMIT": "Change a file first; ignored files are not committed.",
    "HEAD_MOVED": "Read the branch's head again, then retry with it.",
    "NON_FAST_FORWARD": "Fetch and merge the remote branch first, or push to another branch.",
    "BRANCH_CHECKED_OUT": "Push to a branch that is not checked out there, or to a bare "
    "repository.",
    "UNSAVED_WORK": "Commit and push the work, or delete with force to lose it.",
    "PUSH_REJECTED": "Read the remote's message; its rules do not allow this push.",
    "NO_REMOTE": "Name a remote URL in the request.",
    "BRANCH_EXISTS": "Choose another branch name.",
    "HEADS_DIVERGED": "Inside the workspace, `git rebase` onto the head outside, or `git reset` to "
    "it, then try again.",
    "COMMITS_REFUSED": "Inside the workspace, `git fsck` says what is wrong; `git reset --soft` to "
    "the head outside keeps the files.",
    "SNAPSHOT_NOT_FOUND": "Name a snapshot that the workspace has.",
    "SNAPSHOT_EXISTS": "Choose another snapshot id.",
    "WORKTREE_IN_USE": "Wait until the sandbox is idle, or allow a copy of the live files.",
    "WORKTREE_TOO_OLD": "Push its work with the version that made it, or delete the workspace.",
    "WORKTREE_TOO_LARGE": "Commit or remove what is very large or very many, or move it to /tmp or "
    "the home directory; where the call takes paths, name some.",
    "MERGE_CONFLICT": "PreviewMerge shows each conflict. Merge the target inside the workspace, "
    "commit what results, then merge again.",
    "UNRELATED_HISTORIES": "Merge inside the workspace with --allow-unrelated-histories, if that "
    "is what you mean, then merge again.",
    "NOT_LINEAR": "Merge or squash instead.",
    "PROVENANCE_NOT_FOUND": "Ask for a commit that was made with `provenance`, or check a clone "
    "that has fetched refs/notes/cove/*.",
    "SANDBOX_UNAVAILABLE": "Do what the message says on the host; GetCapabilities tells more.",
    "CAPABILITY_MISSING": "Leave out of the spec what this host cannot do; GetCapabilities lists "
    "what it can.",
    "DRIVER_UNKNOWN": "Name a driver that GetCapabilities lists, or none for the default.",
    "NOT_PROVISIONED": "Provision the environment first.",
    "IMAGE_UNAVAILABLE": "Name an image for this kind of machine that the engine has or can fetch; "
    "where the one that a workspace was made with is gone, bring it back to the engine and retry.",
    "NODE_UNAVAILABLE": "Retry; if it stays, have the operator look at that node.",
    "NODE_LOST": "Wait for the node, or delete the workspace and create it anew. One that is "
    "made with `rebuild` is made again elsewhere by itself.",
    "COMMITS_MISSING": "Send the commits with all that they need.",
    "COMMITS_INVALID": "Look at the repository of the sending node with `git fsck`.",
    "HANDLE_STALE": "Repeat the call, for which the gateway asks for the handle in force; services "
    "ask the provider.",
    "BUILD_FAILED": "Read the cause; name another image, or mend the setup.",
    "HANDLE_INVALID": "Provision the environment again and use the new handle.",
    "ACTIVATION_FAILED": "Read the cause; correct the spec or the host, then retry.",
    "PROVISIONED_DIFFERENTLY": "Release the environment first, or repeat the call with the first "
    "spec.",
    "PROXY_PORT_TAKEN": "End the program in the workspace that listens on the port, then change "
    "the network again.",
    "ENVIRONMENT_DORMANT": "Activate the environment, then repeat the call with the same ids.",
    "EXECUTION_NOT_FOUND": "Check the name; list the executions of the workspace.",
    "EXECUTION_EXISTS": "Choose another execution id, or follow the execution that is there.",
    "PROGRAM_NOT_FOUND": "Check the first word of argv and the PATH inside the workspace.",
    "PROGRAM_NOT_EXECUTABLE": "Set the file's executable bit, or run it with an interpreter.",
    "CWD_NOT_FOUND": "Name a directory that exists inside the workspace.",
    "EXECUTION_ENDED": "Start a new execution.",
    "OFFSET_OUT_OF_RANGE": "Read from an offset of at most `end`.",
    "PROCESS_LIMIT": "End processes of the workspace, then retry.",
    "AGENT_TOO_OLD": "Wait until the sandbox has ended of idleness, or delete the workspace; the "
    "next sandbox has the new agent.",
    "FILE_NOT_FOUND": "Check the path; list the directory to see what there is.",
    "PATH_OUTSIDE": "Use a path inside the workspace, relative to its root.",
    "WRONG_FILE_TYPE": "Stat the path; the call needs the other kind.",
    "FILE_EXISTS": "Choose another path, or ask to overwrite.",
    "DIRECTORY_NOT_EMPTY": "Remove what is in it first, or remove recursively.",
    "FILE_CHANGED": _READ_AGAIN,
    "FILE_PERMISSION": "Change the file's mode with a command inside the workspace.",
    "NO_SPACE": "Remove files from the workspace, then retry.",
    "AGENT_UNAVAILABLE": _WAIT,
    "EXECUTION_RUNNING": "Signal the execution or wait for its end, then retry.",
    "PATH_TOO_LONG": "Use shorter names.",
    "INPUT_NOT_OPEN": "Start a command with `stdin` OPEN, or with a `terminal`; attach with "
    "`read_only` to look on.",
    "INPUT_CLOSED": "Start a new execution; what came before `expected` was written.",
    "INPUT_GAP": "Write from the offset `expected` on.",
    "INPUT_HELD": "Wait until the writer has left, look on with `read_only`, or write with "
    "`take_over`, which ends its writing.",
    "TERMINAL_NOT_OPEN": "Start a command with a `terminal`.",
    "PORT_NOT_LISTENING": "Start the server inside, on 127.0.0.1, 0.0.0.0 or ::1, then connect "
    "again.",
    "PORT_LIMIT": "Close forwarded connections of the workspace, then connect again.",
    "PORT_RESET": "Look at the output of the server inside, then connect again.",
    "SECRET_NOT_FOUND": "Send the value with the call, as every retry must, or have the operator "
    "keep one of this name for the tenant.",
    "SECRETS_UNPROTECTED": "Have the operator use a kernel of Linux 5.19 or later with Landlock "
    "among its `lsm=`.",
    "UPLOAD_INCOMPLETE": "Send the whole file again, and its `end` as the last message.",
    "ARCHIVE_INVALID": "Make a tar archive, not compressed, of files, directories, and links that "
    "stay inside it, with relative names, then send all of it again.",
    "ARCHIVE_TOO_LARGE": "Send or read it in several parts.",
    "WATCH_LIMIT": "Watch a directory further down, or have the operator raise "
    "fs.inotify.max_user_watches and max_user_instances.",
}
"""By name of the reason, without `ERROR_REASON_`."""


def remedy(reason: str) -> str:
    """The usual remedy of a reason's full name; empty if it is not one of ours."""
    return REMEDIES.get(reason.removeprefix("ERROR_REASON_"), "")
