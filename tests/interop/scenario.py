"""What the lines of a conformance program must be, and what must be there when it has ended."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from cove import Client
from cove.gateway.v1.gateway_pb2 import Workspace

OUTPUT: Final = b"".join(b"%07d\n" % number for number in range(1, (1 << 20) + 1))
"""What the long command prints: 8 MiB."""

LEAST_BREAKS: Final = 4
LOST: Final = (
    "/cove.gateway.v1.WorkspaceService/CreateWorkspace",
    "/cove.gateway.v1.ExecutionService/StartExecution",
    "/cove.gateway.v1.SourceService/CreateCommit",
)
"""The mutators whose first answer each program loses."""

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(slots=True)
class Scenario:
    """One run of one program."""

    name: str
    suffix: str
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def workspace(self) -> str:
        return f"{self.name}-{self.suffix}"

    @property
    def steps(self) -> list[str]:
        return [line.get("step", "") for line in self.lines]

    def told(self, step: str) -> dict[str, Any]:
        """The line of a step."""
        (line,) = [line for line in self.lines if line.get("step") == step]
        return line

    def hear(self, output: bytes) -> None:
        """What the program wrote."""
        self.lines = [json.loads(line) for line in output.splitlines()]


def check_lines(run: Scenario) -> None:
    """Compare each line with what it must be; more facts in a line are the program's own."""
    name, none = f"workspaces/{run.workspace}", f"workspaces/none-{run.suffix}"
    expected: list[dict[str, Any]] = [
        {"step": "create", "name": name},
        {"step": "again", "same": True},
        _failure("reused", "ALREADY_EXISTS", "REQUEST_ID_REUSED", field=""),
        _failure("missing", "NOT_FOUND", "WORKSPACE_NOT_FOUND", resource=none),
        _failure("invalid", "INVALID_ARGUMENT", "INVALID_FIELD", field="workspace_id"),
        {"step": "start"},
        {"step": "output", "bytes": len(OUTPUT), "sha256": hashlib.sha256(OUTPUT).hexdigest()},
        {"step": "exit", "exit_code": 0},
        {"step": "failed", "exit_code": 3},
        {"step": "write", "path": "hello.txt"},
        {"step": "status", "paths": ["hello.txt", "runs"]},
        {"step": "commit"},
        {"step": "delete", "deleted": True},
    ]
    known = [
        {key: line[key] for key in line.keys() & wanted.keys()}
        for line, wanted in zip(run.lines, expected, strict=False)
    ]
    assert known == expected
    assert run.told("create")["uid"]
    assert run.told("start")["execution"].startswith(f"{name}/executions/")
    assert run.told("output")["breaks"] >= LEAST_BREAKS
    assert _COMMIT.fullmatch(run.told("commit")["commit"])


def _failure(step: str, code: str, reason: str, **more: str) -> dict[str, Any]:
    reason = f"ERROR_REASON_{reason}"
    return {"step": step, "code": code, "reason": reason, "domain": "cove", **more}


async def check_suite(cove: Client, run: Scenario) -> None:
    """Ask the suite what there is: each mutator made one thing, however often it was sent.

    The workspace was deleted with a commit that is nowhere else, so that it can be had back.
    """
    made = [each async for each in cove.workspaces.list(show_deleted=True)]
    (workspace,) = [each for each in made if run.suffix in each.id]
    assert (workspace.id, workspace.message.uid) == (run.workspace, run.told("create")["uid"])
    assert workspace.message.state == Workspace.STATE_DELETED

    workspace = await cove.workspaces.undelete(run.workspace)
    assert await workspace.files.read("runs") == b"ran\n"
    assert await workspace.files.read("hello.txt") == f"hello from {run.name}\n".encode()
    assert (await workspace.status()).total == 0
    commit, base = [each async for each in workspace.source.log()]
    assert (commit.id, list(commit.parents)) == (run.told("commit")["commit"], [base.id])
    assert base.id == workspace.message.base_commit
    await workspace.delete(force=True)
