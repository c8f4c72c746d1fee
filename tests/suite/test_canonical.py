"""The canonical calls of the contract, word for word over HTTP."""

import json
import re
from pathlib import Path

import httpx
import pytest

from tests.suite.conftest import head_of

pytestmark = pytest.mark.asyncio(loop_scope="package")

COMMIT = re.compile(r"[0-9a-f]{40}")


async def test_create_execute_status_commit_push_delete(
    http: httpx.AsyncClient, repository: Path
) -> None:
    made = await http.post(
        "/workspaces?workspace_id=demo",
        json={"spec": {"repository": f"file://{repository}", "revision": "main"}},
    )
    assert made.status_code == 201, made.text
    workspace = made.json()
    assert workspace["name"] == "workspaces/demo"
    assert re.fullmatch(r"[a-z2-7]{16}", workspace["uid"])
    assert workspace["state"] == "STATE_READY"
    assert workspace["branch"] == "cove/demo"
    assert workspace["baseCommit"] == head_of(repository, "main")

    ran = await http.post(
        "/workspaces/demo/execute",
        json={"spec": {"argv": ["sh", "-c", "echo hi; echo 1 > new.txt"], "timeout": "60s"}},
    )
    assert ran.status_code == 200, ran.text
    answer = ran.json()
    assert answer["execution"]["name"].startswith("workspaces/demo/executions/")
    assert answer["execution"]["exit"]["code"] == 0
    assert answer["stdout"] == {"text": "hi\n"}
    assert answer["stderr"] == {"text": ""}

    started = await http.post(
        "/workspaces/demo/executions?execution_id=build-1",
        json={"spec": {"script": "echo made 2>&1 | tee log"}},
    )
    assert started.status_code == 201, started.text
    assert started.json()["name"] == "workspaces/demo/executions/build-1"
    output = await http.get("/workspaces/demo/executions/build-1/output?from_offset=0&follow=true")
    events = [json.loads(line) for line in output.text.splitlines()]
    assert [list(event) for event in events if "heartbeat" not in event] == [["chunk"], ["exit"]]
    assert events[-1]["exit"]["code"] == 0
    await http.request("DELETE", "/workspaces/demo/files/log")

    status = await http.get("/workspaces/demo/git/status")
    assert status.json() == {
        "branch": "cove/demo",
        "headCommit": workspace["baseCommit"],
        "baseCommit": workspace["baseCommit"],
        "entries": [{"path": "new.txt", "workState": "WORK_STATE_UNTRACKED"}],
        "total": 1,
    }

    committed = await http.post(
        "/workspaces/demo/git/commit",
        json={
            "commit": {
                "message": "Add new.txt",
                "author": {"name": "Ada", "email": "ada@example.org"},
            }
        },
    )
    assert committed.status_code == 200, committed.text
    commit = committed.json()["commit"]
    assert COMMIT.fullmatch(commit["id"])
    assert commit["parents"] == [workspace["baseCommit"]]

    pushed = await http.post("/workspaces/demo/git/push", json={})
    assert pushed.status_code == 200, pushed.text
    assert head_of(repository, "cove/demo") == commit["id"]

    assert (await http.delete("/workspaces/demo")).status_code == 200
    assert (await http.get("/workspaces/demo")).status_code == 404


async def test_git_works_inside_and_sees_the_commit(
    http: httpx.AsyncClient, repository: Path
) -> None:
    spec = {"repository": f"file://{repository}"}
    assert (await http.post("/workspaces?workspace_id=inside", json={"spec": spec})).is_success
    script = "echo 2 >> README && git status --short && git diff --stat && git log --oneline"
    ran = await http.post("/workspaces/inside/execute", json={"spec": {"script": script}})
    assert ran.json()["execution"]["exit"]["code"] == 0, ran.text
    assert ran.json()["stdout"]["text"].startswith(" M README\n")
    message = {"commit": {"message": "Two"}}
    committed = (await http.post("/workspaces/inside/git/commit", json=message)).json()
    script = "git rev-parse HEAD && git status --short && git show --stat HEAD"
    ran = await http.post("/workspaces/inside/execute", json={"spec": {"script": script}})
    lines = ran.json()["stdout"]["text"].splitlines()
    assert lines[0] == committed["commit"]["id"], ran.text
    assert "README" in lines[-2]
    await http.request("DELETE", "/workspaces/inside?force=true")
