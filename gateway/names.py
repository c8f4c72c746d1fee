"""Names of workspaces here, of environments and executions behind, and ids derived from ids."""

import base64
import hashlib
import os
import uuid
from typing import Final

from cove.registry.v1.registry_pb2 import Environment

WORKSPACES: Final = "workspaces/"
ENVIRONMENTS: Final = "environments/"
EXECUTIONS: Final = "/executions/"
SNAPSHOTS: Final = "/snapshots/"
TOKENS: Final = "tokens/"


def environment_name(workspace: str) -> str:
    """`workspaces/demo` as the registry names it."""
    return ENVIRONMENTS + workspace.removeprefix(WORKSPACES)


def workspace_name(environment: str) -> str:
    """`environments/demo` of the registry as callers name it."""
    return WORKSPACES + environment.removeprefix(ENVIRONMENTS)


def workspace_id(environment: Environment) -> str:
    return environment.name.removeprefix(ENVIRONMENTS)


def split_snapshot(name: str) -> tuple[str, str]:
    """The workspace's name, and the id of the snapshot, of a snapshot's name."""
    workspace, _, snapshot_id = name.partition(SNAPSHOTS)
    return workspace, snapshot_id


def split_execution(name: str) -> tuple[str, str]:
    """The workspace's name, and the id of the execution, of an execution's name."""
    workspace, _, execution_id = name.partition(EXECUTIONS)
    return workspace, execution_id


def behind(environment: Environment, execution_id: str = "") -> str:
    """How the executor names the environment, or one of its executions."""
    name = f"{ENVIRONMENTS}{environment.uid}"
    return f"{name}{EXECUTIONS}{execution_id}" if execution_id else name


def words(environment: Environment) -> dict[str, str]:
    """What to replace in a failure that the executor tells of."""
    return {behind(environment): workspace_name(environment.name)}


def branch_of(environment: Environment) -> str:
    return environment.spec.branch or f"cove/{workspace_id(environment)}"


def made_up(request_id: str, principal: str) -> str:
    """An id for a workspace whose caller gave none: the same for the same request, so that what it
    began anew is found under its name. Empty for a request without an id."""
    if not request_id:
        return ""
    digest = hashlib.sha256(f"{principal}\0{request_id}".encode()).digest()
    return base64.b32encode(digest[:5]).decode().lower()


def derived(request_id: str, step: str) -> str:
    """The request id of one step of a request: the same for the same request.

    A request without one gets one that no other has, so that what the channel
    repeats by itself is not done twice.
    """
    return str(uuid.uuid5(uuid.UUID(request_id), step) if request_id else uuid.uuid4())


def derived_if(request_id: str, step: str) -> str:
    """As `derived`, for what has an id of its own that makes it safe to repeat: without
    a request id nothing needs to be remembered behind."""
    return derived(request_id, step) if request_id else ""


def execution_id(asked: str, request_id: str) -> str:
    """The id of a new execution: known before the first try, and the same in a retry."""
    return asked or _made_id(request_id, "execution")


def snapshot_id(asked: str, request_id: str) -> str:
    """The id of a new snapshot, likewise."""
    return asked or _made_id(request_id, "snapshot")


def token_id(asked: str, request_id: str) -> str:
    """The id of a new token, likewise."""
    return asked or _made_id(request_id, "token")


def _made_id(request_id: str, step: str) -> str:
    made = uuid.UUID(derived(request_id, step)).bytes[:10] if request_id else os.urandom(10)
    return base64.b32encode(made).decode().lower()
