"""`cove create ls show rm undelete health capabilities`, and how failures are told."""

import json
import os
from pathlib import Path

import pytest

from cove.cli.workspaces import repository_url
from cove.endpoint import FILE
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_create_prints_the_id_alone(suite: Suite, origin: Path) -> None:
    created = await suite.cove("create", ".", "--id", "alone", "--label", "a=b", cwd=origin)
    assert (created.status, created.text, created.errors) == (0, "alone\n", "")
    shown = await suite.cove("show", "alone")
    assert "state:      ready\n" in shown.text
    assert "branch:     cove/alone\n" in shown.text
    assert "labels:     a=b\n" in shown.text
    removed = await suite.cove("rm", "alone")
    assert removed.text == "alone removed\n"
    assert (await suite.cove("show", "alone")).status == 1


async def test_create_warns_of_what_it_did_not_take(suite: Suite, origin: Path) -> None:
    (origin / "dirty").write_text("")
    created = await suite.cove("create", str(origin))
    (origin / "dirty").unlink()
    assert created.errors.startswith("warning: ")
    await suite.cove("rm", "-f", created.text.strip())


async def test_ls_is_a_table(suite: Suite, demo: str) -> None:
    listed = await suite.cove("ls")
    header, *rows = listed.text.splitlines()
    assert header.split() == ["ID", "STATE", "BRANCH", "HEAD", "AGE", "REPOSITORY"]
    assert any(row.split()[:3] == ["demo", "ready", "cove/demo"] for row in rows)


async def test_ls_is_of_a_selection_in_an_order(suite: Suite, demo: str, origin: Path) -> None:
    await suite.cove("create", str(origin), "--id", "zeta", "--label", "team=web")
    newest = await suite.cove("ls", "--order-by", "create_time desc")
    assert newest.text.splitlines()[1].split()[0] == "zeta"
    chosen = await suite.cove("ls", "--filter", "state = READY AND labels.team = web")
    assert [row.split()[0] for row in chosen.text.splitlines()[1:]] == ["zeta"]
    assert (await suite.cove("ls", "--filter", "labels.team = none")).text.splitlines()[1:] == []
    wrong = await suite.cove("ls", "--filter", "team = web")
    assert wrong.status == 1
    assert "at 1: found team, allowed: the fields name, uid," in wrong.errors
    assert (await suite.cove("ls", "--order-by", "size")).status == 1
    await suite.cove("rm", "--force", "zeta")


async def test_json_is_the_contracts(suite: Suite, demo: str) -> None:
    listed = json.loads((await suite.cove("ls", "--json")).text)
    found = next(each for each in listed["workspaces"] if each["name"] == "workspaces/demo")
    assert found["state"] == "STATE_READY"
    assert json.loads((await suite.cove("show", demo, "--json")).text)["uid"] == found["uid"]


async def test_a_workspace_is_forked_as_it_is_and_as_it_was(suite: Suite, fresh: str) -> None:
    await suite.cove("exec", fresh, "--script", "echo 1 > draft")
    kept = await suite.cove("snapshot", fresh, "before")
    assert kept.text == "before\n", kept.errors
    await suite.cove("exec", fresh, "--script", "echo 2 > draft")
    forked = await suite.cove("fork", fresh, "now", "-l", "a=b")
    assert forked.text == "now\n", forked.errors
    again = json.loads((await suite.cove("fork", fresh, "--snapshot", "before", "--json")).text)
    assert again["source"] == f"workspaces/{fresh}/snapshots/before"
    other = again["name"].removeprefix("workspaces/")
    assert (await suite.cove("exec", "now", "cat", "draft")).text == "2\n"
    assert (await suite.cove("exec", other, "cat", "draft")).text == "1\n"
    shown = (await suite.cove("show", "now")).text
    assert f"source:     {fresh}\n" in shown
    assert "labels:     a=b\n" in shown
    listed = (await suite.cove("snapshots", fresh)).text.splitlines()
    assert [row.split()[0] for row in listed] == ["ID", "before"]
    assert (await suite.cove("snapshot", fresh, "before", "--rm")).text == "before removed\n"
    assert json.loads((await suite.cove("snapshots", fresh, "--json")).text) == {}
    assert "no such snapshot" in (await suite.cove("fork", fresh, "--snapshot", "before")).errors
    assert (await suite.cove("snapshot", fresh, "--rm")).status == 2
    done = await suite.cove("commit", "now", "-m", "Still", "--frozen")
    assert done.text.endswith(" Still\n"), done.errors
    await suite.cove("rm", "-f", "now", other)


async def test_one_is_suspended_and_resumed_and_its_life_is_told(suite: Suite, fresh: str) -> None:
    life = ("--ttl", "8h", "--idle-timeout", "30m")
    assert (await suite.cove("update", fresh, *life)).text == f"{fresh}\n"
    assert (await suite.cove("suspend", fresh)).text == f"{fresh}\n"
    shown = (await suite.cove("show", fresh)).text
    for line in ("suspended", "it was asked for", "30m", "expires:"):
        assert line in shown
    refused = await suite.cove("exec", fresh, "--", "true")
    assert refused.status == 1
    assert "Resume the workspace" in refused.errors
    assert (await suite.cove("resume", fresh)).text == f"{fresh}\n"
    assert (await suite.cove("exec", fresh, "--", "echo", "on")).text == "on\n"
    await suite.cove("update", fresh, "--no-ttl", "--no-idle-timeout")
    assert "expires" not in (await suite.cove("show", fresh)).text
    assert (await suite.cove("update", fresh, "--ttl", "8h", "--no-ttl")).status == 2


async def test_unsaved_work_is_kept_and_brought_back(suite: Suite, fresh: str) -> None:
    await suite.cove("exec", fresh, "--script", "echo 1 > unsaved")
    removed = await suite.cove("rm", fresh)
    assert "unsaved work is kept until" in removed.text
    assert fresh not in (await suite.cove("ls")).text
    assert "deleted" in (await suite.cove("ls", "--all")).text
    back = await suite.cove("undelete", fresh)
    assert back.text == f"{fresh}\n", back.errors
    assert (await suite.cove("exec", fresh, "--", "cat", "unsaved")).text == "1\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "none"],
        ["rm", "none"],
        ["exec", "none", "--", "true"],
        ["logs", "demo", "none"],
        ["status", "none"],
        ["cp", "none:a", "b"],
        ["create", "/no/such/repository"],
        ["create", "ext::sh -c id"],
        ["show", "Not-A-Label"],
    ],
)
async def test_a_failure_is_two_lines(suite: Suite, demo: str, arguments: list[str]) -> None:
    done = await suite.cove(*arguments)
    assert done.status == 1
    error, remedy = done.errors.splitlines()
    assert error.startswith("error: ")
    assert remedy.startswith("remedy: ")
    assert done.stdout == b""


async def test_a_failure_can_be_json(suite: Suite) -> None:
    done = await suite.cove("show", "none", "--json")
    error = json.loads(done.errors)["error"]
    assert (error["code"], error["reason"]) == ("NOT_FOUND", "ERROR_REASON_WORKSPACE_NOT_FOUND")
    assert error["metadata"] == {"name": "workspaces/none"}
    assert error["requestId"]
    done = await suite.cove("exec", "none", "--json")
    assert done.status == 2
    assert json.loads(done.errors)["error"]["message"] == "no command to run"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["show"], ["exec"], ["kill", "a"]])
async def test_a_wrong_command_line_ends_with_2(suite: Suite, arguments: list[str]) -> None:
    done = await suite.cove(*arguments)
    assert done.status == 2
    assert "usage: " in done.errors or "remedy: " in done.errors
    assert "Traceback" not in done.errors


async def test_nobody_there_is_told(suite: Suite) -> None:
    done = await suite.cove("ls", "--address", "127.0.0.1:1")
    assert done.status == 1
    assert "remedy: Start the suite with `cove up`" in done.errors


async def test_a_wrong_token_is_told(suite: Suite, tmp_path: Path) -> None:
    left = json.loads((suite.state / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**left, "token_file": str(tmp_path / "none")}))
    done = await suite.cove("ls", "--state", str(tmp_path))
    assert done.status == 1
    assert "remedy: Set COVE_TOKEN" in done.errors


async def test_health_is_that_of_every_service(suite: Suite) -> None:
    done = await suite.cove("health", "--json")
    services = json.loads(done.text)["services"]
    assert done.status == 0
    assert set(services.values()) == {"SERVING"}
    assert {name.split(".")[1] for name in services} == {
        "gateway",
        "registry",
        "git",
        "provider",
        "executor",
    }


async def test_health_of_a_service_that_is_away_is_a_failure(suite: Suite) -> None:
    done = await suite.cove("health", "--address", "127.0.0.1:1")
    assert done.status == 1
    assert "UNREACHABLE" in done.text
    assert done.errors == "remedy: `cove doctor` on the machine of the suite says more.\n"


async def test_a_limit_is_a_size_as_people_write_it(suite: Suite) -> None:
    created = await suite.cove("create", "--memory", "512MiB", "--json")
    if os.geteuid() != 0:  # There it is the provider that refuses it, having no control groups.
        assert "memory" in created.errors
        return
    found = json.loads(created.text)
    assert found["spec"]["limits"] == {"memoryBytes": str(512 << 20)}
    await suite.cove("rm", "-f", found["name"].removeprefix("workspaces/"))


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["status", "none"], "`cove ls --all` lists the workspaces there are."),
        (["logs", "demo", "none"], "`cove ps demo` lists the executions there are."),
        (["create", "--id", "demo"], "Choose another --id; `cove show demo` shows the one"),
    ],
)
async def test_a_remedy_is_a_command(
    suite: Suite, demo: str, arguments: list[str], remedy: str
) -> None:
    done = await suite.cove(*arguments)
    assert f"remedy: {remedy}" in done.errors


async def test_capabilities_say_what_is_enforced(suite: Suite) -> None:
    done = await suite.cove("capabilities")
    assert "isolation:  namespaces" in done.text
    assert json.loads((await suite.cove("capabilities", "--json")).text)["version"]


async def test_a_path_becomes_a_url_and_a_url_stays(tmp_path: Path) -> None:
    assert repository_url(str(tmp_path)) == tmp_path.as_uri()
    assert repository_url("https://h/r.git") == "https://h/r.git"
    assert repository_url("git@h:r.git") == "git@h:r.git"
    assert repository_url("") == ""
