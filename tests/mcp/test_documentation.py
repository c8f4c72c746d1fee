"""docs/mcp.md says of the tools what the tools say of themselves."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cove.cli.mcp import SHORTEST_TOKEN, TOKEN
from cove.mcp.remotes import HOSTS, PASSWORD, USERNAME
from cove.mcp.server import INSTRUCTIONS, TOOLS
from cove.mcp.tool import Tool

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "mcp.md").read_text()


def row(tool: Tool[Any]) -> str:
    """Its line in the table."""
    sentence, _, _ = tool.description.partition(". ")
    hints = [
        word
        for word, is_so in (
            ("reads", tool.reads),
            ("may lose work", tool.destroys),
            ("may be repeated", tool.repeats),
            ("talks to the remote", tool.reaches_out),
        )
        if is_so
    ]
    return f"| `{tool.name}` | {sentence.rstrip('.')} | {', '.join(hints)} |"


def test_every_tool_has_its_line_and_nothing_else_has() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `workspace_")]
    assert rows == [row(tool) for tool in TOOLS]


def test_tools_that_are_named_are_there() -> None:
    names = {tool.name for tool in TOOLS}
    told = [INSTRUCTIONS, PAGE, *(tool.description for tool in TOOLS)]
    for text in told:
        assert set(re.findall(r"\bworkspace_\w+", text)) <= names


def test_the_configuration_is_one_line_of_json() -> None:
    configurations = re.findall(r"^(\{.*\})$", PAGE, re.MULTILINE)
    found = [json.loads(line) for line in configurations]
    assert found[0] == {"mcpServers": {"cove": {"command": "cove", "args": ["mcp"]}}}


@pytest.mark.parametrize("variable", [USERNAME, PASSWORD, HOSTS, TOKEN])
def test_every_variable_is_told(variable: str) -> None:
    assert f"`{variable}`" in PAGE


def test_the_shortest_token_is_told() -> None:
    assert f"at least {SHORTEST_TOKEN} characters" in " ".join(PAGE.split())
