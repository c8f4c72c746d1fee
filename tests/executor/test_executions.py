"""ExecutorService, called as a client calls it, on a real sandbox."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from agent.handle import Handle
from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from services.executor import executions
from tests.executor.node import Caller, Node, Sandbox, refused, start, until
from tests.servicekit.failing import answered

Code = grpc.StatusCode


async def test_execute_answers_exit_and_both_streams(caller: Caller, box: Sandbox) -> None:
    done = await caller.execute(box, "echo out; echo err >&2; exit 3")
    assert done.stdout.text == "out\n"
    assert done.stderr.text == "err\n"
    assert done.execution.exit.code == 3
    assert done.execution.state == pb.Execution.STATE_ENDED
    assert done.execution.exit.output_bytes == done.execution.output_bytes == 8
    assert done.execution.exit.end_time.ToNanoseconds() > 0


async def test_argv_is_run_without_a_shell(caller: Caller, box: Sandbox) -> None:
    spec = pb.ExecutionSpec(argv=["printf", "%s|", "a b", "$HOME", "*"])
    request = pb.ExecuteRequest(handle=box.handle, spec=spec)
    assert (await caller.executions.Execute(request)).stdout.text == "a b|$HOME|*|"


async def test_the_environment_is_made_from_nothing(caller: Caller, box: Sandbox) -> None:
    spec = pb.ExecutionSpec(script="env", env={"A": "spec", "B": "spec"}, interpreter="sh")
    request = pb.ExecuteRequest(
        handle=box.handle,
        execution_id="env",
        spec=spec,
        environment_env={"A": "environment", "C": "environment", "HOME": "/tmp"},
    )
    text = (await caller.executions.Execute(request)).stdout.text
    found = dict(line.split("=", 1) for line in text.splitlines())
    assert found.pop("COVE_EXECUTION_ID").startswith("env.")
    assert found.pop("PATH").endswith(":/bin")
    for name in ("PWD", "OLDPWD", "_", "SHLVL"):  # The shell's own.
        found.pop(name, None)
    expected = {"A": "spec", "B": "spec", "C": "environment", "HOME": "/tmp"}
    assert found == expected | {"LANG": "C.UTF-8", "USER": "cove"}


@pytest.mark.parametrize(
    ("cwd", "shown"), [("", "/workspace"), ("sub", "/workspace/sub"), ("/tmp", "/tmp")]
)
async def test_cwd_is_relative_to_the_workspace(
    caller: Caller, box: Sandbox, cwd: str, shown: str
) -> None:
    (box.tree / "sub").mkdir()
    assert (await caller.execute(box, "pwd", cwd=cwd)).stdout.text == f"{shown}\n"


async def test_defaults_are_filled_into_the_spec(caller: Caller, box: Sandbox) -> None:
    started = await caller.start(box, "one", "until [ -e go ]; do sleep 0.01; done")
    assert started.spec.timeout == Duration(seconds=3600)
    assert started.spec.interpreter == "sh"
    assert started.name == box.name("one")
    assert started.state == pb.Execution.STATE_RUNNING
    (box.tree / "go").touch()
    ended = await caller.wait(box, "one")
    assert ended.etag != started.etag


async def test_the_same_start_finds_the_same_execution(caller: Caller, box: Sandbox) -> None:
    script = "echo x >> count; cat count"
    first = await caller.start(box, "one", script)
    await caller.wait(box, "one")
    second = await caller.start(box, "one", script)
    assert second.create_time == first.create_time
    assert second.state == pb.Execution.STATE_ENDED
    assert (box.tree / "count").read_text() == "x\n"


async def test_an_id_of_another_spec_is_refused(caller: Caller, box: Sandbox) -> None:
    await caller.start(box, "one", "true")
    async with refused(Code.ALREADY_EXISTS, Why.ERROR_REASON_EXECUTION_EXISTS):
        await caller.start(box, "one", "false")


async def test_a_request_id_makes_the_execution_id(caller: Caller, box: Sandbox) -> None:
    request = start(box, "", "echo x >> count", cwd="")
    request.request_id = str(uuid.uuid4())
    first = await caller.executions.StartExecution(request)
    again = await caller.executions.StartExecution(request)
    assert again.execution.name == first.execution.name
    request.execution.spec.script = "other"
    async with refused(Code.ALREADY_EXISTS, Why.ERROR_REASON_REQUEST_ID_REUSED):
        await caller.executions.StartExecution(request)


@pytest.mark.parametrize(
    ("spec", "code", "why"),
    [
        ({"argv": ["no-such-program"]}, Code.NOT_FOUND, Why.ERROR_REASON_PROGRAM_NOT_FOUND),
        (
            {"argv": ["/etc/passwd"]},
            Code.PERMISSION_DENIED,
            Why.ERROR_REASON_PROGRAM_NOT_EXECUTABLE,
        ),
        ({"argv": ["true"], "cwd": "none"}, Code.NOT_FOUND, Why.ERROR_REASON_CWD_NOT_FOUND),
        ({}, Code.INVALID_ARGUMENT, Why.ERROR_REASON_INVALID_FIELD),
        (
            {"argv": ["true"], "script": "true"},
            Code.INVALID_ARGUMENT,
            Why.ERROR_REASON_INVALID_FIELD,
        ),
    ],
)
async def test_a_start_that_failed_leaves_the_id_free(
    caller: Caller, box: Sandbox, spec: dict[str, object], code: Code, why: int
) -> None:
    request = pb.ExecuteRequest(
        handle=box.handle,
        execution_id="one",
        spec=pb.ExecutionSpec(**spec),  # type: ignore[arg-type]
    )
    async with refused(code, why):
        await caller.executions.Execute(request)
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_EXECUTION_NOT_FOUND):
        await caller.get(box, "one")
    await caller.start(box, "one", "true")


async def test_a_process_limit_is_told(node: Node, caller: Caller) -> None:
    if os.getuid() != 0:
        pytest.skip("limits of control groups need root")
    reached = refused(Code.RESOURCE_EXHAUSTED, Why.ERROR_REASON_PROCESS_LIMIT)
    async with node.sandbox(pids=4) as box, reached:
        for number in range(8):
            await caller.start(box, f"s{number}", "exec sleep 60")


@pytest.mark.parametrize(
    "handle",
    [
        b"nonsense",
        Handle(driver="local", node="elsewhere", uid="a" * 16).encode(),
        Handle(driver="docker", node="test", uid="a" * 16).encode(),
    ],
)
async def test_a_handle_of_elsewhere_is_refused(caller: Caller, handle: bytes) -> None:
    request = pb.ExecuteRequest(handle=handle, spec=pb.ExecutionSpec(script="true"))
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_HANDLE_INVALID):
        await caller.executions.Execute(request)


async def test_a_dormant_environment_is_told(node: Node, caller: Caller, box: Sandbox) -> None:
    await node.end(box)
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_ENVIRONMENT_DORMANT):
        await caller.start(box, "one", "true")
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_EXECUTION_NOT_FOUND):
        await caller.get(box, "one")


async def test_a_timeout_ends_the_command_and_all_it_started(caller: Caller, box: Sandbox) -> None:
    done = await caller.execute(
        box, "setsid sleep 61 & sleep 62", timeout=Duration(nanos=300_000_000)
    )
    assert done.execution.exit.timed_out.which == pb.Exit.TimedOut.WHICH_TIMEOUT
    assert (await caller.execute(box, "pgrep -c sleep || true")).stdout.text in ("0\n", "")


async def test_a_signal_is_told_as_such(caller: Caller, box: Sandbox) -> None:
    done = await caller.execute(box, "kill -USR1 $$")
    assert done.execution.exit.signal.number == 10


async def test_lack_of_memory_is_told_apart_from_a_kill(node: Node, caller: Caller) -> None:
    if os.getuid() != 0:
        pytest.skip("limits of control groups need root")
    async with node.sandbox(memory_bytes=96 << 20) as box:
        done = await caller.execute(box, "exec python3 -c 'x = bytearray(400 << 20)'")
        assert done.execution.exit.limit.which == pb.Exit.Limited.WHICH_MEMORY
        assert done.execution.exit.peak_memory_bytes > 32 << 20
        killed = await caller.execute(box, "kill -9 $$")
        assert killed.execution.exit.signal.number == 9


async def test_use_of_resources_is_told(caller: Caller, box: Sandbox) -> None:
    script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
    done = await caller.execute(box, script)
    assert done.execution.exit.cpu_time.ToNanoseconds() > 5_000_000
    assert done.execution.exit.peak_memory_bytes > 100_000


async def test_control_groups_go_with_their_execution(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    if os.getuid() != 0:
        pytest.skip("control groups need root")
    await caller.start(box, "one", "exec sleep 60")
    own = set(await node.groups(box))
    assert own
    await caller.signal(box, "one", 9, pb.SIGNAL_SCOPE_TREE)

    async def gone() -> bool:
        return not own & set(await node.groups(box))

    await until(gone)


@pytest.mark.parametrize("scope", [pb.SIGNAL_SCOPE_UNSPECIFIED, pb.SIGNAL_SCOPE_PROCESS])
async def test_a_signal_reaches_the_command(caller: Caller, box: Sandbox, scope: int) -> None:
    script = "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    await caller.start(box, "one", script)
    async for event in caller.read(box, "one"):
        if event.chunk.data == b"ready\n":
            break
    await caller.signal(box, "one", 15, scope)
    ended = await caller.wait(box, "one")
    assert ended.exit.code == 7
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_EXECUTION_ENDED):
        await caller.signal(box, "one", 15, scope)


async def test_a_killed_tree_is_gone_when_the_call_returns(caller: Caller, box: Sandbox) -> None:
    script = "for i in 1 2 3; do setsid sh -c 'sleep 61 & trap : TERM; wait' & done; sleep 62"
    await caller.start(box, "one", script)

    async def spread() -> bool:
        return (await caller.execute(box, "pgrep -c sleep")).stdout.text == "4\n"

    await until(spread)
    killed = await caller.signal(box, "one", 9, pb.SIGNAL_SCOPE_TREE)
    assert killed.exit.signal.number == 9
    assert (await caller.execute(box, "pgrep -c sleep || true")).stdout.text in ("0\n", "")


async def test_a_background_child_does_not_hold_the_end(caller: Caller, box: Sandbox) -> None:
    async with asyncio.timeout(30):
        done = await caller.execute(box, "echo before; sleep 60 & echo after")
    assert done.execution.exit.code == 0
    assert done.stdout.text == "before\nafter\n"
    name = done.execution.name.rpartition("/")[2]
    await caller.signal(box, name, 9, pb.SIGNAL_SCOPE_TREE)
    assert (await caller.execute(box, "pgrep -c sleep || true")).stdout.text in ("0\n", "")


async def test_executions_are_listed_in_pages(caller: Caller, box: Sandbox) -> None:
    ids = ["a1", "a2", "b"]
    for execution_id in ids:
        await caller.start(box, execution_id, "true")
    request = pb.ListExecutionsRequest(parent=box.parent, page_size=2)
    first = await caller.executions.ListExecutions(request)
    request.page_token = first.next_page_token
    second = await caller.executions.ListExecutions(request)
    names = [each.name for each in (*first.executions, *second.executions)]
    assert names == [box.name(each) for each in ids]
    assert not second.next_page_token
    request.page_token = "x" + first.next_page_token
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_PAGE_TOKEN_INVALID):
        await caller.executions.ListExecutions(request)


async def test_executions_are_listed_by_when_they_were_made(caller: Caller, box: Sandbox) -> None:
    for execution_id in ("c", "a", "d", "b"):
        await caller.start(box, execution_id, "true")

    async def page(request: pb.ListExecutionsRequest) -> list[str]:
        answer = await caller.executions.ListExecutions(request)
        request.page_token = answer.next_page_token
        return [each.name.rpartition("/")[2] for each in answer.executions]

    for order, expected in {
        "": "abcd",
        "name": "abcd",
        "name desc": "dcba",
        "create_time": "cadb",
        "create_time desc": "bdac",
    }.items():
        request = pb.ListExecutionsRequest(parent=box.parent, order_by=order, page_size=3)
        assert "".join(await page(request) + await page(request)) == expected, order
        assert not request.page_token

    newest = pb.ListExecutionsRequest(
        parent=box.parent, order_by="create_time desc", page_size=1, filter="name != a"
    )
    assert await page(newest) == ["b"]
    other = pb.ListExecutionsRequest(
        parent=box.parent, order_by="name desc", filter="name != a", page_token=newest.page_token
    )
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_PAGE_TOKEN_INVALID):
        await page(other)
    await caller.start(box, "aa", "true")  # Made meanwhile, and so before this page.
    await caller.wait(box, "d")
    await caller.executions.DeleteExecution(pb.DeleteExecutionRequest(name=box.name("d")))
    assert await page(newest) == ["c"]
    for order in ("state", "name, create_time", "create_time up"):
        request = pb.ListExecutionsRequest(parent=box.parent, order_by=order)
        async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_ORDER_INVALID):
            await page(request)


async def test_a_list_is_of_the_selection(caller: Caller, box: Sandbox) -> None:
    for execution_id, script in {"ok": "true", "bad": "exit 3", "on": "sleep 60"}.items():
        await caller.start(box, execution_id, script)
    for execution_id in ("ok", "bad"):
        await caller.wait(box, execution_id)

    async def selected(text: str, **fields: Any) -> list[str]:
        request = pb.ListExecutionsRequest(parent=box.parent, filter=text, **fields)
        answer = await caller.executions.ListExecutions(request)
        return [each.name.rpartition("/")[2] for each in answer.executions]

    assert await selected("state = RUNNING") == ["on"]
    assert await selected("exit.code != 0") == ["bad"]
    assert await selected("exit:*") == ["bad", "ok"]
    assert await selected("NOT exit:*") == ["on"]
    assert await selected(f'name = "{box.name("ok")}" OR name = o*') == ["ok", "on"]
    assert await selected("spec.script = *sleep* AND create_time > 2020-01-01T00:00:00Z") == ["on"]
    assert await selected("exit.code = 3", page_size=1) == ["bad"]
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_FILTER_INVALID):
        await selected("state = GREAT")
    await caller.signal(box, "on", 9, pb.SIGNAL_SCOPE_TREE)


async def test_a_page_of_a_selection_looks_at_a_bounded_number(
    caller: Caller, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executions, "_LOOKED_AT", 2)
    for execution_id in ("a", "b", "c"):
        await caller.start(box, execution_id, "true" if execution_id != "c" else "exit 3")
        await caller.wait(box, execution_id)
    request = pb.ListExecutionsRequest(parent=box.parent, filter="exit.code = 3")
    first = await caller.executions.ListExecutions(request)
    assert not first.executions
    request.page_token = first.next_page_token
    second = await caller.executions.ListExecutions(request)
    assert [each.name for each in second.executions] == [box.name("c")]
    assert not second.next_page_token


async def test_delete_removes_what_has_ended(caller: Caller, box: Sandbox) -> None:
    await caller.start(box, "one", "true")
    await caller.wait(box, "one")
    request = pb.DeleteExecutionRequest(name=box.name("one"))
    await caller.executions.DeleteExecution(request)
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_EXECUTION_NOT_FOUND):
        await caller.executions.DeleteExecution(request)
    request.allow_missing = True
    await caller.executions.DeleteExecution(request)
    await caller.start(box, "one", "exit 4")  # The agent still remembers the id.
    assert (await caller.wait(box, "one")).exit.code == 4


async def test_delete_of_what_runs_must_be_forced(caller: Caller, box: Sandbox) -> None:
    await caller.start(box, "one", "sleep 60")
    request = pb.DeleteExecutionRequest(name=box.name("one"))
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_EXECUTION_RUNNING):
        await caller.executions.DeleteExecution(request)
    request.force = True
    await caller.executions.DeleteExecution(request)
    assert (await caller.execute(box, "pgrep -c sleep || true")).stdout.text in ("0\n", "")


async def test_all_are_deleted_once_the_sandbox_is_gone(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    await caller.start(box, "one", "true")
    await caller.start(box, "two", "sleep 60")
    request = pb.DeleteExecutionsRequest(parent=box.parent)
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_EXECUTION_RUNNING):
        await caller.executions.DeleteExecutions(request)
    await node.end(box)
    assert (await caller.executions.DeleteExecutions(request)).removed == 2
    assert (await caller.executions.DeleteExecutions(request)).removed == 0


async def test_stream_tells_all_from_start_to_exit(caller: Caller, box: Sandbox) -> None:
    script = "echo a; until [ -e go ]; do sleep 0.02; done; echo b"
    request = pb.StreamExecutionRequest(handle=box.handle, spec=pb.ExecutionSpec(script=script))
    events: list[str | None] = []
    async for event in caller.executions.StreamExecution(request):
        events.append(event.WhichOneof("event"))
        if "chunk" in events and events[-1] == "heartbeat":
            (box.tree / "go").touch()
    assert events[0] == "execution"
    assert events[-1] == "exit"
    assert events.count("chunk") == 2


@pytest.mark.parametrize("cancels", [True, False])
async def test_leaving_a_stream_cancels_only_if_asked(
    caller: Caller, box: Sandbox, cancels: bool
) -> None:
    request = pb.StreamExecutionRequest(
        handle=box.handle,
        execution_id="one",
        spec=pb.ExecutionSpec(script="echo on; sleep 60"),
        cancel_on_disconnect=cancels,
    )
    call = caller.executions.StreamExecution(request)
    async for event in call:
        if event.WhichOneof("event") == "chunk":
            break
    call.cancel()
    if cancels:
        ended = await caller.wait(box, "one")
        assert ended.exit.WhichOneof("reason") == "cancelled"
        assert ended.exit.cancelled.by
    else:
        assert (await caller.get(box, "one")).state == pb.Execution.STATE_RUNNING


async def upload(box: Sandbox, request: Any, header: Any) -> AsyncIterator[Any]:
    yield request(header=header(handle=box.handle, path="x"))


async def test_a_full_disk_refuses_new_work_only(node: Node, box: Sandbox) -> None:
    async with node.executor() as before:
        await before.start(box, "one", "echo kept")
        await before.wait(box, "one")
    async with node.executor(disk_limit=0.0) as caller:
        async with refused(Code.RESOURCE_EXHAUSTED, Why.ERROR_REASON_DISK_FULL):
            await caller.start(box, "two", "true")
        async with refused(Code.RESOURCE_EXHAUSTED, Why.ERROR_REASON_DISK_FULL):
            await answered(
                caller.files.WriteFile(upload(box, pb.WriteFileRequest, pb.WriteFileHeader))
            )
        async with refused(Code.RESOURCE_EXHAUSTED, Why.ERROR_REASON_DISK_FULL):
            await answered(
                caller.files.WriteArchive(
                    upload(box, pb.WriteArchiveRequest, pb.WriteArchiveHeader)
                )
            )
        listed = await caller.files.ListFiles(pb.ListFilesRequest(handle=box.handle, path="."))
        assert listed.page_size
        assert await caller.output(box, "one") == b"kept\n"
        await caller.executions.DeleteExecution(pb.DeleteExecutionRequest(name=box.name("one")))


async def test_a_deadline_ends_the_call_and_not_the_command(caller: Caller, box: Sandbox) -> None:
    request = pb.ExecuteRequest(
        handle=box.handle, execution_id="one", spec=pb.ExecutionSpec(script="sleep 1; echo done")
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.executions.Execute(request, timeout=0.3)
    assert caught.value.code() is Code.DEADLINE_EXCEEDED
    assert (await caller.executions.Execute(request)).stdout.text == "done\n"
