"""What a token has opened, by whatever RPC, ends when it is revoked."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest

from cove.client import Client
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub, FileServiceStub
from tests.access.stage import answered, bearer
from tests.support.suite import Suite

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.long]


async def first_and_wait(first: Any) -> AsyncIterator[Any]:
    yield first
    await asyncio.Event().wait()


async def test_each_call_that_lasts_ends_with_its_token(suite: Suite) -> None:
    name = "workspaces/revoked"
    async with (
        Client(suite.grpc, suite.token) as cove,
        grpc.aio.insecure_channel(suite.grpc) as channel,
    ):
        workspace = await cove.workspaces.create(id="revoked")
        serving = "import socket; s = socket.create_server(('127.0.0.1', 7000)); print(1, flush=1)"
        server = await workspace.start("python3", "-c", f"{serving}; s.accept(); s.accept()")
        sleeper = await workspace.start("cat", stdin=True)
        shown = await cove.tokens.create("writer")
        metadata = bearer(shown.secret)
        run, files = ExecutionServiceStub(channel), FileServiceStub(channel)
        async for event in server.output(follow=True):
            if event:
                break
        execution = f"{name}/executions/{sleeper.id}"
        attach = pb.AttachRequest()
        attach.open.name = execution
        attach.open.read_only = True
        forward = pb.ForwardPortRequest()
        forward.target.name, forward.target.port = name, 7000
        write = pb.WriteFileRequest()
        write.header.name, write.header.path = name, "half"
        archive = pb.WriteArchiveRequest()
        archive.header.name, archive.header.path = name, "."
        fed = pb.StreamInputRequest(name=execution, offset=0)
        long = pb.StreamExecutionRequest(name=name)
        long.spec.argv.extend(["sleep", "100"])
        execute = pb.ExecuteRequest(name=name)
        execute.spec.argv.extend(["sleep", "100"])
        made = {
            "Attach": run.Attach(first_and_wait(attach), metadata=metadata),
            "ForwardPort": run.ForwardPort(first_and_wait(forward), metadata=metadata),
            "ReadOutput": run.ReadOutput(
                pb.ReadOutputRequest(name=execution, follow=True), metadata=metadata
            ),
            "StreamExecution": run.StreamExecution(long, metadata=metadata),
            "WatchUsage": run.WatchUsage(pb.WatchUsageRequest(name=name), metadata=metadata),
            "WatchFiles": files.WatchFiles(
                pb.WatchFilesRequest(name=name, path="."), metadata=metadata
            ),
            "StreamInput": run.StreamInput(first_and_wait(fed), metadata=metadata),
            "WriteFile": files.WriteFile(first_and_wait(write), metadata=metadata),
            "WriteArchive": files.WriteArchive(first_and_wait(archive), metadata=metadata),
            "Execute": run.Execute(execute, metadata=metadata),
            "WaitExecution": run.WaitExecution(
                pb.WaitExecutionRequest(name=execution), metadata=metadata
            ),
        }
        ends = {each: asyncio.create_task(ended(call)) for each, call in made.items()}
        ends["events"] = asyncio.create_task(events(suite, execution, shown.secret))
        done, _ = await asyncio.wait(ends.values(), timeout=3)
        assert not done, {each: task.result() for each, task in ends.items() if task.done()}
        await cove.tokens.revoke(shown.token.name.removeprefix("tokens/"))
        _, open_ = await asyncio.wait(ends.values(), timeout=30)
        for task in open_:
            task.cancel()
        found = {each: "open" if task in open_ else task.result() for each, task in ends.items()}
        await workspace.delete(force=True)
    assert set(found.values()) == {"UNAUTHENTICATED"}, found


async def ended(call: Any) -> str:
    try:
        if isinstance(call, grpc.aio.UnaryUnaryCall | grpc.aio.StreamUnaryCall):
            await call
        else:
            async for _ in call:
                pass
    except grpc.aio.AioRpcError as error:
        return answered(error).reason or str(error)
    return "ended well"


async def events(suite: Suite, execution: str, secret: str) -> str:
    headers = {"authorization": f"Bearer {secret}", "accept": "text/event-stream"}
    async with httpx.AsyncClient(base_url=f"http://{suite.http}", timeout=60) as web:
        url = f"/{execution}/output?follow=true"
        text = ""
        async with web.stream("GET", url, headers=headers) as answer:
            async for line in answer.aiter_lines():
                text += line
    return "UNAUTHENTICATED" if "UNAUTHENTICATED" in text else text or str(answer)
