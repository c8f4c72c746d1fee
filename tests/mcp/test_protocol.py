"""What clients are told of the tools, and how wrong calls are answered."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from mcp import Client, MCPError

from cove.mcp.server import TOOLS
from tests.mcp.agent import Agent, Refused, command, connected, over_stdio
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

NAMES = [tool.name for tool in TOOLS]
SECRETS = ("password", "token", "secret", "credential", "key")


def arguments(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from schema["properties"].items()


async def test_all_tools_are_listed(agent: Agent) -> None:
    assert list(await agent.tools()) == NAMES
    assert agent.client.instructions
    assert "workspace_create" in agent.client.instructions
    assert agent.client.server_info
    assert agent.client.server_info.name == "cove"


@pytest.mark.parametrize("name", NAMES)
async def test_a_tool_says_what_it_takes_and_within_what_limits(agent: Agent, name: str) -> None:
    tool = (await agent.tools())[name]
    assert tool.title
    assert tool.description
    assert len(tool.description) < 1000
    schema = tool.input_schema
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert ("workspace" in schema.get("required", [])) is ("workspace" in schema["properties"])
    for argument, said in arguments(schema):
        assert argument == "message" or said["description"], argument
        assert (
            (argument in schema.get("required", []))
            or argument in ("env", "paths")
            or ("default" in said)
        ), argument
        match said["type"]:
            case "string":
                assert said.keys() & {"maxLength", "pattern", "enum"}, argument
            case "integer":
                assert said.keys() >= {"minimum", "maximum"}, argument
            case "array":
                assert said["maxItems"]
            case "object":
                assert said["maxProperties"]
            case kind:
                assert kind == "boolean", argument
        assert not [word for word in SECRETS if word in argument.lower()]


@pytest.mark.parametrize("name", NAMES)
async def test_hints_and_schema_of_the_answer_are_told(agent: Agent, name: str) -> None:
    tool = (await agent.tools())[name]
    hints = tool.annotations
    assert hints
    assert None not in (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint)
    assert not (hints.read_only_hint and hints.destructive_hint)
    changes = {"create", "delete", "undelete", "exec", "kill", "write", "edit", "commit", "push"}
    assert hints.read_only_hint is (name.removeprefix("workspace_") not in changes)
    if tool.output_schema:
        jsonschema.Draft202012Validator.check_schema(tool.output_schema)
        assert tool.output_schema["type"] == "object"


async def test_arguments_that_do_not_fit_are_all_named(agent: Agent) -> None:
    with pytest.raises(Refused) as refused:
        await agent.text("exec", workspace="Not An Id", cmd="true", wait_seconds=100_000)
    said = refused.value
    assert (said.said["code"], said.said["reason"]) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    named = {field.partition(":")[0] for field in said.fields}
    assert named == {"workspace", "command", "cmd", "wait_seconds"}
    assert "pydantic" not in said.text


async def test_a_list_may_come_as_its_json(agent: Agent, fresh: str) -> None:
    env, paths = json.dumps({"WHO": "ada"}), json.dumps(["README.md"])
    ran = await agent.data("exec", workspace=fresh, command="echo $WHO | tee README.md", env=env)
    assert ran["output"] == "ada\n"
    assert "1 files differ" in await agent.text("diff", workspace=fresh, paths=paths)
    with pytest.raises(Refused) as refused:
        await agent.text("diff", workspace=fresh, paths="README.md")
    assert refused.value.fields[0].startswith("paths: ")


async def test_an_unknown_tool_is_an_error_of_the_protocol(agent: Agent) -> None:
    with pytest.raises(MCPError, match="there is no tool workspace_nonsense"):
        await agent("nonsense")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"repository": "/no/such/repository"}, "REPOSITORY_NOT_FOUND"),
        ({"repository": "https://ada:word@example.org/a.git"}, "INVALID_FIELD"),
        ({"repository": "https://127.0.0.1/a.git"}, "REMOTE_FORBIDDEN"),
        ({"repository": "a\0b"}, "INVALID_FIELD"),
        ({"repository": "~no-such-user/a"}, "INVALID_FIELD"),
    ],
)
async def test_a_workspace_that_cannot_be_made_says_why(
    agent: Agent, asked: dict[str, str], reason: str
) -> None:
    with pytest.raises(Refused) as refused:
        await agent.text("create", **asked)
    assert refused.value.said["reason"] == reason
    assert refused.value.said["remedy"]
    assert "word" not in refused.value.text.replace("password", "")


async def test_an_id_that_is_taken_is_told(agent: Agent, fresh: str, origin: Path) -> None:
    with pytest.raises(Refused) as refused:
        await agent.text("create", repository=str(origin), id=fresh)
    assert refused.value.said["reason"] == "WORKSPACE_EXISTS"


async def test_progress_is_told_to_who_asks(agent: Agent, origin: Path) -> None:
    told: list[tuple[float, str | None]] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    made = await agent.client.call_tool(
        "workspace_create", {"repository": str(origin)}, progress_callback=tell
    )
    assert made.structured_content
    await agent.text("delete", workspace=made.structured_content["id"])
    assert [number for number, _ in told] == list(range(1, len(told) + 1))
    assert all(message for _, message in told)


@pytest.mark.parametrize("env", [{"COVE_ADDRESS": "127.0.0.1:1"}, {"COVE_STATE": "/no/such/state"}])
async def test_without_a_gateway_tools_are_listed_and_say_what_to_do(
    suite: Suite, env: dict[str, str]
) -> None:
    async with over_stdio(suite, env) as agent:
        assert list(await agent.tools()) == NAMES
        with pytest.raises(Refused) as refused:
            await agent.text("list")
    assert refused.value.said["code"] == "UNAVAILABLE"
    assert "`cove up`" in refused.value.said["remedy"]


async def test_a_wrong_token_is_told(suite: Suite) -> None:
    async with over_stdio(suite, {"COVE_TOKEN": "wrong"}) as agent:
        with pytest.raises(Refused) as refused:
            await agent.text("list")
    assert refused.value.said["code"] == "UNAUTHENTICATED"
    assert "COVE_TOKEN" in refused.value.said["remedy"]


async def test_a_client_of_before_2026_is_served(suite: Suite) -> None:
    client = Client(command(suite), mode="legacy")
    async with connected(client) as agent:
        assert list(await agent.tools()) == NAMES
        assert await agent.data("list")


async def test_it_ends_when_its_client_does(suite: Suite, fresh: str) -> None:
    """Also while a call waits."""
    parameters = command(suite)
    process = await asyncio.create_subprocess_exec(
        parameters.command,
        *parameters.args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=parameters.env,
    )
    assert process.stdin
    assert process.stdout
    ran = {"workspace": fresh, "command": "sleep 600", "wait_seconds": 600, "execution": "waiting"}
    for number, (method, asked) in enumerate(
        [
            (
                "initialize",
                {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {},
                    "clientInfo": {"name": "test", "version": "1"},
                },
            ),
            ("tools/call", {"name": "workspace_exec", "arguments": ran}),
        ]
    ):
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": asked}
        process.stdin.write(json.dumps(message).encode() + b"\n")
        if not number:
            await process.stdout.readline()
            process.stdin.write(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
    process.stdin.close()
    async with asyncio.timeout(30):
        await process.communicate()
    assert process.returncode == 0


async def test_without_the_package_the_remedy_is_told(tmp_path: Path) -> None:
    hidden = "import sys\nsys.modules['mcp'] = sys.modules['mcp_types'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    done = subprocess.run(
        [sys.executable, "-m", "cove", "mcp"],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "remedy: pip install 'cove[mcp]'"
    assert done.stdout == ""


async def test_no_other_command_loads_the_package() -> None:
    program = (
        "import sys; from cove.cli.main import command_line; command_line();"
        "from cove.cli import workspaces, running, files, source;"
        "print([name for name in ('mcp', 'mcp_types', 'pydantic', 'starlette', 'cove.mcp')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"
