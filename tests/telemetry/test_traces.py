"""One trace from the caller's parent to the command, through the real processes."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import ExecutionServiceStub, WorkspaceServiceStub
from tests.support.repository import make_repository
from tests.support.suite import Suite, until
from tests.telemetry.collector import Collector, Seen

pytestmark = pytest.mark.asyncio(loop_scope="package")

SECRET = "hunter2-of-the-command"
SERVICES = {f"cove-{name}" for name in ("gateway", "registry", "git", "provider", "executor")}
SERVER = 2
ERROR = 2


def parent(*, sampled: bool = True) -> tuple[str, str, str]:
    trace, span = os.urandom(16).hex(), os.urandom(8).hex()
    return trace, span, f"00-{trace}-{span}-{'01' if sampled else '00'}"


def headers(suite: Suite, traceparent: str = "", request_id: str = "") -> list[tuple[str, str]]:
    given = [("traceparent", traceparent), ("x-request-id", request_id)]
    return [("authorization", f"Bearer {suite.token}"), *(each for each in given if each[1])]


async def run(suite: Suite, workspace: str, shown: Sequence[tuple[str, str]], **env: str) -> str:
    """What the command sees of TRACEPARENT."""
    spec = executor_pb2.ExecutionSpec(script="echo $TRACEPARENT", env={"SECRET": SECRET, **env})
    async with grpc.aio.insecure_channel(suite.grpc) as channel:
        stub = ExecutionServiceStub(channel)
        request = pb.ExecuteRequest(name=f"workspaces/{workspace}", spec=spec)
        answer = await stub.Execute(request, metadata=tuple(shown))
    return answer.stdout.text.strip()


async def create(
    suite: Suite, workspace: str, shown: Sequence[tuple[str, str]], *, repository: str = ""
) -> None:
    request = pb.CreateWorkspaceRequest(workspace_id=workspace)
    if repository:
        request.workspace.spec.repository = repository
    async with grpc.aio.insecure_channel(suite.grpc) as channel:
        await WorkspaceServiceStub(channel).CreateWorkspace(request, metadata=tuple(shown))


def below(spans: Sequence[Seen], span: Seen) -> list[Seen]:
    return [each for each in spans if each.parent == span.id]


async def test_one_trace_from_the_caller_to_the_command(
    suite: Suite, collector: Collector, tmp_path: Path
) -> None:
    trace, span, shown = parent()
    make_repository(tmp_path / "app")
    url = f"file://{tmp_path}/app"
    await create(suite, "traced", headers(suite, shown, "create-traced"), repository=url)
    told = await run(suite, "traced", headers(suite, shown, "run-traced"))

    def complete() -> bool:
        if {each.service for each in collector.of(trace)} != SERVICES:
            return False
        known = {each.id for each in collector.of(trace)}
        roots = [each for each in collector.of(trace) if each.parent not in known]
        names = {each.name for each in collector.of(trace)}
        last = {"sandbox start", "execution start", "create record"}
        return last <= names and len(roots) == 2 and {each.parent for each in roots} == {span}

    await collector.until(complete)
    spans = collector.of(trace)
    by_id = {each.id: each for each in spans}
    assert len(by_id) == len(spans)
    roots = [each for each in spans if each.parent not in by_id]
    assert {each.parent for each in roots} == {span}
    assert {each.service for each in roots} == {"cove-gateway"}
    version, of, last, flags = told.split("-")
    assert (version, of, flags) == ("00", trace, "01")
    assert by_id[last].name == "execution start"
    assert by_id[last].service == "cove-executor"
    (creating,) = [each for each in roots if "CreateWorkspace" in each.name]
    steps = {each.name: each for each in below(spans, creating) if each.kind != SERVER}
    assert {"create worktree", "create provision", "create record"} <= steps.keys()
    method = "cove.git.v1.GitService/CreateWorktree"
    (worktree,) = [each for each in below(spans, steps["create worktree"]) if each.name == method]
    assert [each for each in below(spans, worktree) if each.name.startswith("git ")]
    (sandbox,) = [each for each in spans if each.name == "sandbox start"]
    assert by_id[sandbox.parent].name == "cove.provider.v1.ProviderService/ActivateEnvironment"
    assert all(each.code == 0 for each in spans if each.kind == SERVER and each in roots)


async def test_attributes_are_those_of_the_conventions_and_hold_no_contents(
    suite: Suite, collector: Collector
) -> None:
    trace, _, shown = parent()
    await create(suite, "attributes", headers(suite, shown, "create-attributes"))
    await run(suite, "attributes", headers(suite, shown, "run-attributes"))
    await collector.until(
        lambda: any("Execute" in each.name for each in collector.of(trace) if each.kind == SERVER)
    )
    (called,) = [each for each in collector.of(trace) if "CreateWorkspace" in each.name]
    assert called.attributes["rpc.system.name"] == "grpc"
    assert called.attributes["rpc.method"] == "cove.gateway.v1.WorkspaceService/CreateWorkspace"
    assert called.attributes["rpc.response.status_code"] == "OK"
    assert called.attributes["cove.request_id"] == "create-attributes"
    assert called.resource["service.namespace"] == "cove"
    assert {"service.version", "service.instance.id", "host.name"} <= called.resource.keys()
    for secret in (SECRET, suite.token, "echo $TRACEPARENT"):
        assert not [data for data in collector.raw if secret.encode() in data]


async def test_what_the_caller_did_wrong_is_no_fault_of_the_server(
    suite: Suite, collector: Collector
) -> None:
    trace, _, shown = parent()
    async with grpc.aio.insecure_channel(suite.grpc) as channel:
        request = pb.GetWorkspaceRequest(name="workspaces/nowhere")
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await WorkspaceServiceStub(channel).GetWorkspace(
                request, metadata=tuple(headers(suite, shown))
            )
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    method = "cove.gateway.v1.WorkspaceService/GetWorkspace"
    await collector.until(lambda: method in {each.name for each in collector.of(trace)})
    (missed,) = [each for each in collector.of(trace) if each.name == method]
    assert missed.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert missed.attributes["error.type"] == "WORKSPACE_NOT_FOUND"
    assert (missed.code, missed.message) == (0, "")


async def test_a_service_that_does_not_answer_is_a_fault(
    suite: Suite, collector: Collector
) -> None:
    await create(suite, "stalled", headers(suite))
    trace, _, shown = parent()
    executor = suite.pid("executor")
    os.kill(executor, signal.SIGSTOP)
    try:
        async with grpc.aio.insecure_channel(suite.grpc) as channel:
            # Else its time may be over before there is a call.
            await channel.channel_ready()
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await ExecutionServiceStub(channel).ListExecutions(
                    pb.ListExecutionsRequest(parent="workspaces/stalled"),
                    metadata=tuple(headers(suite, shown)),
                    timeout=2,
                )
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        os.kill(executor, signal.SIGCONT)
    method = "cove.gateway.v1.ExecutionService/ListExecutions"
    await collector.until(lambda: method in {each.name for each in collector.of(trace)})
    (failed,) = [each for each in collector.of(trace) if each.name == method]
    assert failed.attributes["rpc.response.status_code"] == "DEADLINE_EXCEEDED"
    assert failed.code == ERROR
    assert failed.message


async def test_the_log_has_the_ids_of_the_trace(suite: Suite, collector: Collector) -> None:
    trace, _, shown = parent()
    await create(suite, "logged", headers(suite, shown, "create-logged"))
    await collector.until(
        lambda: any("CreateWorkspace" in each.name for each in collector.of(trace))
    )

    def logged(*services: str) -> bool:
        lines = lines_of(suite, trace)
        methods = {line["method"].lstrip("/") for line in lines if line["message"] == "call"}
        called = {each.name for each in collector.of(trace) if each.kind == SERVER}
        return called <= methods and {line["service"] for line in lines} >= {*services}

    await until(lambda: logged("gateway", "registry", "git", "provider"), "the lines of all")
    assert {line["request_id"] for line in lines_of(suite, trace)} == {"create-logged"}


async def test_who_samples_decides_and_the_command_may_overrule(
    suite: Suite, collector: Collector
) -> None:
    trace, _, shown = parent(sampled=False)
    await create(suite, "unsampled", headers(suite, shown))
    assert await run(suite, "unsampled", headers(suite, shown)) == shown
    # Without a parent the ratio decides, which is 0 here; the command is told so, too.
    assert (await run(suite, "unsampled", headers(suite))).endswith("-00")
    own = parent()[2]
    assert await run(suite, "unsampled", headers(suite, shown), TRACEPARENT=own) == own
    other = parent()
    await run(suite, "unsampled", headers(suite, other[2]))
    await collector.until(lambda: bool(collector.of(other[0])))
    assert not collector.of(trace)


async def test_http_is_of_the_same_trace(suite: Suite, collector: Collector) -> None:
    trace, span, shown = parent()
    async with httpx.AsyncClient(
        base_url=f"http://{suite.http}",
        headers={"authorization": f"Bearer {suite.token}"},
        trust_env=False,
        timeout=30,
    ) as http:
        await http.get("/workspaces", headers={"traceparent": shown})
        answer = await http.get("/workspaces", headers={"x-request-id": "without-a-trace"})
    made = answer.headers["traceparent"].split("-")[1]
    await collector.until(lambda: any(each.parent == span for each in collector.of(trace)))
    (first,) = [each for each in collector.of(trace) if each.parent == span]
    assert first.name == "cove.gateway.v1.WorkspaceService/ListWorkspaces"
    await until(lambda: bool(lines_of(suite, "without-a-trace")), "the line of the call")
    assert {each["trace_id"] for each in lines_of(suite, "without-a-trace")} == {made}


def lines_of(suite: Suite, text: str) -> list[dict[str, Any]]:
    """Whole lines of the log with this in them."""
    whole = suite.log.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in whole if text in line and line.endswith("\n")]
