"""grpcurl, with nothing but reflection: no proto file is given to it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.suite.conftest import head_of
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

GRPCURL = shutil.which("grpcurl", path=str(Path(sys.executable).parent)) or "grpcurl"
ALWAYS = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
SERVICES = {
    "registry": {
        "cove.registry.v1.AccessService",
        "cove.registry.v1.AuditService",
        "cove.registry.v1.RegistryService",
    },
    "git": {"cove.git.v1.GitService"},
    "provider": {"cove.provider.v1.ProviderService"},
    "executor": {"cove.executor.v1.ExecutorService", "cove.executor.v1.FileService"},
    "gateway": {
        "cove.gateway.v1.AccessService",
        "cove.gateway.v1.AuditService",
        "cove.gateway.v1.ExecutionService",
        "cove.gateway.v1.FileService",
        "cove.gateway.v1.SourceService",
        "cove.gateway.v1.WorkspaceService",
    },
}


def grpcurl(suite: Suite, *arguments: str) -> str:
    command = [GRPCURL, "-plaintext", "-H", f"authorization: Bearer {suite.token}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(suite: Suite, method: str, **request: Any) -> Any:
    data = json.dumps(request)
    return json.loads(grpcurl(suite, "-d", data, suite.grpc, f"cove.gateway.v1.{method}"))


@pytest.mark.parametrize("service", SERVICES)
async def test_every_process_lists_its_services(suite: Suite, service: str) -> None:
    arguments = ["-unix", str(suite.runtime / service)]
    listed = set(grpcurl(suite, *arguments, "list").split())
    assert listed == SERVICES[service] | ALWAYS


async def test_drives_a_workspace_from_create_to_delete(suite: Suite, repository: Path) -> None:
    spec = {"repository": f"file://{repository}"}
    made = call(
        suite, "WorkspaceService/CreateWorkspace", workspace_id="curl", workspace={"spec": spec}
    )
    assert made["workspace"]["state"] == "STATE_READY"
    name = made["workspace"]["name"]
    ran = call(
        suite,
        "ExecutionService/Execute",
        name=name,
        spec={"argv": ["sh", "-c", "echo hi; echo 1 > new.txt"]},
    )
    assert ran["stdout"]["text"] == "hi\n"
    status = call(suite, "SourceService/GetWorktreeStatus", name=name)["status"]
    # Descriptors of Python have no JSON names, so grpcurl writes those of the proto.
    assert status["entries"] == [{"path": "new.txt", "work_state": "WORK_STATE_UNTRACKED"}]
    commit = call(
        suite, "SourceService/CreateCommit", parent=name, commit={"message": "Add new.txt"}
    )["commit"]
    call(suite, "SourceService/PushBranch", name=name)
    assert head_of(repository, "cove/curl") == commit["id"]
    assert call(suite, "WorkspaceService/DeleteWorkspace", name=name) == {}
    listed = call(suite, "WorkspaceService/ListWorkspaces").get("workspaces", [])
    assert name not in [each["name"] for each in listed]
