"""What an agent sees of `cove mcp`, by the protocol's own client."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import mcp_types
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests.support.suite import Suite


class Refused(Exception):
    """An answer that is an error, as its lines say."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        pairs = [line.partition(": ") for line in text.splitlines()]
        self.said = {name: value for name, _, value in pairs}
        self.fields = [value for name, _, value in pairs if name == "field"]


@dataclass(frozen=True, slots=True)
class Agent:
    """Calls tools by their names without `workspace_`."""

    client: Client

    async def __call__(self, tool: str, **arguments: Any) -> mcp_types.CallToolResult:
        return await self.client.call_tool(f"workspace_{tool}", arguments)

    async def texts(self, tool: str, **arguments: Any) -> list[str]:
        """The blocks of text of an answer. Raises `Refused`."""
        found = await self(tool, **arguments)
        blocks = [block for block in found.content if isinstance(block, mcp_types.TextContent)]
        assert len(blocks) == len(found.content) > 0
        texts = [block.text for block in blocks]
        if found.is_error:
            raise Refused(texts[0])
        return texts

    async def text(self, tool: str, **arguments: Any) -> str:
        return "\n".join(await self.texts(tool, **arguments))

    async def data(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """What an answer has for programs. Raises `Refused`."""
        found = await self(tool, **arguments)
        if found.is_error:
            assert isinstance(found.content[0], mcp_types.TextContent)
            raise Refused(found.content[0].text)
        assert isinstance(found.structured_content, dict)
        return found.structured_content

    async def tools(self) -> dict[str, mcp_types.Tool]:
        return {tool.name: tool for tool in (await self.client.list_tools()).tools}


@asynccontextmanager
async def connected(client: Client) -> AsyncIterator[Agent]:
    """Holds the client in a task of its own: it may be left only by the task that entered it."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        async with client:
            ready.set_result(None)
            await done.wait()

    holding = asyncio.create_task(hold())
    await asyncio.wait([ready, holding], return_when=asyncio.FIRST_COMPLETED)
    if holding.done():
        await holding
    try:
        yield Agent(client)
    finally:
        done.set()
        await holding


def command(
    suite: Suite, *arguments: str, env: Mapping[str, str] | None = None
) -> StdioServerParameters:
    """How an agent starts `cove mcp`."""
    program, *rest = suite.command("mcp", *arguments)
    settings = {**suite.env, "COVE_STATE": str(suite.state), **(env or {})}
    return StdioServerParameters(command=program, args=rest, env=settings)


@asynccontextmanager
async def over_stdio(suite: Suite, env: Mapping[str, str] | None = None) -> AsyncIterator[Agent]:
    async with connected(Client(command(suite, env=env))) as agent:
        yield agent


@dataclass(frozen=True, slots=True)
class Served:
    """A `cove mcp --http` that runs."""

    url: str
    token: str
    said: Mapping[str, str]
    process: asyncio.subprocess.Process

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Agent]:
        headers = {"authorization": f"Bearer {self.token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            client = Client(streamable_http_client(self.url, http_client=http))
            async with connected(client) as agent:
                yield agent


@asynccontextmanager
async def serving(
    suite: Suite, where: str = "127.0.0.1:0", env: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    """Start it, and end it by SIGTERM."""
    settings = {**suite.env, "COVE_STATE": str(suite.state), **(env or {})}
    process = await asyncio.create_subprocess_exec(
        *suite.command("mcp", "--http", where),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], **settings},
    )
    assert process.stdout
    try:
        async with asyncio.timeout(30):
            said = json.loads(await process.stdout.readline())
        token = said.get("token") or settings["COVE_MCP_TOKEN"]
        yield Served(said["mcp"], token, said, process)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(30):
            await process.communicate()
