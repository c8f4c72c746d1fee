"""Secrets of commands: only the command has them, and nothing that is kept."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from agent.channel import Channel
from agent.client import AgentError, ErrorCode
from agent.frames import unpack
from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from services.executor.command import refusal
from services.executor.errors import AgentTooOld, SecretsUnprotected
from services.executor.record import Spec
from services.executor.store import Store
from tests.executor.node import Caller, Node, Sandbox, recorded, refused, start
from tests.support.walking import contents

Code = grpc.StatusCode
VALUE = "hush-1f0c9b7e-hush"
HOUR_NS = 3600 * 10**9


def holding(folder: Path, value: str) -> list[str]:
    """Files that have it in them, but for large logs of other tests."""
    return [str(each) for each, data in contents(folder, 1 << 24) if value.encode() in data]


async def test_a_command_has_its_secrets_and_nothing_else_keeps_them(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    request = start(
        box, "one", 'test "$TOKEN" = "$EXPECTED" && echo yes; until [ -e go ]; do :; done'
    )
    request.execution.spec.secrets["TOKEN"] = VALUE
    request.execution.spec.secrets["EXPECTED"] = VALUE
    request.request_id = str(uuid.uuid4())
    started = (await caller.executions.StartExecution(request)).execution
    assert dict(started.spec.secrets) == {"TOKEN": "", "EXPECTED": ""}
    # A retry brings what it has by then.
    request.execution.spec.secrets["TOKEN"] = "another-value"
    again = (await caller.executions.StartExecution(request)).execution
    assert again.create_time == started.create_time
    assert holding(node.state, VALUE) == holding(node.runtime, VALUE) == []
    sibling = await caller.execute(box, "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>&1")
    assert VALUE.encode() not in sibling.stdout.text.encode() + sibling.stdout.data
    (box.tree / "go").touch()
    assert await caller.output(box, "one") == b"yes\n"
    for found in (await caller.get(box, "one"), await caller.wait(box, "one")):
        assert VALUE not in str(found)
    assert holding(node.state, VALUE) == []


async def test_other_names_are_another_spec(caller: Caller, box: Sandbox) -> None:
    request = start(box, "one", "true", secrets={"A": VALUE})
    await caller.executions.StartExecution(request)
    async with refused(Code.ALREADY_EXISTS, Why.ERROR_REASON_EXECUTION_EXISTS):
        await caller.start(box, "one", "true")
    async with refused(Code.ALREADY_EXISTS, Why.ERROR_REASON_EXECUTION_EXISTS):
        await caller.start(box, "one", "true", secrets={"B": VALUE})
    assert (await caller.start(box, "one", "true", secrets={"A": ""})).name == box.name("one")


async def test_values_are_masked_wherever_they_are_cut(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    half = len(VALUE) // 2
    script = f"""
    printf %s "$TOKEN"; printf %s "$TOKEN" >&2; echo; sleep 0.05
    printf %s "{VALUE[:half]}"; sleep 0.05; printf '%s|' "{VALUE[half:]}"; sleep 0.05
    head -c 300000 /dev/zero | tr '\\0' x; printf '%s|' "$TOKEN$TOKEN"; printf %s "{VALUE[:half]}"
    """
    # In parts, as the script itself is no secret.
    done = await caller.execute(box, script, secrets={"TOKEN": VALUE}, redact=True)
    assert done.stderr.text == "***"
    assert done.stdout.text == f"***\n***|{'x' * 300000}******|{VALUE[:half]}"
    assert done.execution.exit.output_bytes == len(done.stdout.text) + 3
    logs = [*(node.state / "executor" / "executions" / box.uid).rglob("log")]
    assert logs
    assert not any(VALUE.encode() in each.read_bytes() for each in logs)
    plain = await caller.execute(box, "echo $TOKEN", secrets={"TOKEN": VALUE})
    assert plain.stdout.text == f"{VALUE}\n"


@pytest.mark.parametrize("value", ["abc", "x" * 4097])
async def test_what_cannot_be_found_in_output_is_not_promised(
    caller: Caller, box: Sandbox, value: str
) -> None:
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_INVALID_FIELD):
        await caller.start(box, "one", "true", secrets={"A": value}, redact=True)
    assert (await caller.execute(box, "true", secrets={"A": value})).execution.exit.code == 0


@pytest.fixture
def kept(node: Node) -> Iterator[Path]:
    folder = node.state / "executor" / "secrets" / "acme"
    folder.mkdir(mode=0o700, parents=True)
    yield folder
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()


async def named(caller: Caller, box: Sandbox, name: str, tenant: str = "acme") -> str:
    spec = pb.ExecutionSpec(argv=["printenv", name], secrets={name: ""})
    request = pb.ExecuteRequest(handle=box.handle, execution_id="one", spec=spec)
    done = await caller.executions.Execute(request, metadata=(("cove-tenant", tenant),))
    return done.stdout.text


async def test_what_the_operator_keeps_is_given_to_its_tenant(
    caller: Caller, box: Sandbox, kept: Path
) -> None:
    path = kept / "API_KEY"
    path.write_text(f"{VALUE}\n")
    path.chmod(0o600)
    for tenant in ("other", "", "..", "acme/../acme"):
        async with refused(Code.NOT_FOUND, Why.ERROR_REASON_SECRET_NOT_FOUND):
            await named(caller, box, "API_KEY", tenant)
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_SECRET_NOT_FOUND):
        await named(caller, box, "NO_SUCH")
    # Whatever was refused left no record: the id is free.
    assert await named(caller, box, "API_KEY") == f"{VALUE}\n"


@pytest.mark.parametrize("how", ["open", "link", "folder", "empty", "pipe", "large", "nul"])
async def test_a_file_that_is_no_safe_secret_is_none(
    caller: Caller, box: Sandbox, kept: Path, tmp_path: Path, how: str
) -> None:
    path = kept / "API_KEY"
    content = {"empty": "", "large": "x" * 40000, "nul": "a\0b"}.get(how, VALUE)
    if how == "pipe":
        os.mkfifo(path, 0o600)
    elif how == "folder":
        path = tmp_path / "x"
        (kept / "API_KEY").symlink_to(tmp_path)
    elif how == "link":
        (tmp_path / "x").write_text(VALUE)
        path.symlink_to(tmp_path / "x")
    else:
        path.write_text(content)
        path.chmod(0o644 if how == "open" else 0o600)
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_SECRET_NOT_FOUND):
        await named(caller, box, "API_KEY")


async def test_a_recorded_start_without_its_secrets_never_runs(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    """An executor was killed between the record and the agent; the values went with it."""
    store = Store(node.state / "executor" / "executions")
    script = "echo $TOKEN >> ran; cat ran"
    spec = Spec(script=script, interpreter="sh", timeout_ns=HOUR_NS, secrets=("TOKEN",))
    with recorded(store, box.uid, "one", spec, 10**18):
        pass
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_SECRET_NOT_FOUND):
        await caller.start(box, "one", script, secrets={"TOKEN": ""})
    assert not (box.tree / "ran").exists()
    await caller.start(box, "one", script, secrets={"TOKEN": VALUE})
    assert await caller.output(box, "one") == f"{VALUE}\n".encode()
    # It ran: values are not needed any more.
    assert (await caller.start(box, "one", script, secrets={"TOKEN": ""})).exit.code == 0


async def test_an_error_of_validation_does_not_show_a_value(caller: Caller, box: Sandbox) -> None:
    for secrets in (
        {"A": f"{VALUE}\0"},
        {"no name": VALUE},
        {"A": VALUE * 2000},
        {"COVE_EXECUTION_ID": VALUE},
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.start(box, "one", "true", secrets=secrets)
        assert caught.value.code() is Code.INVALID_ARGUMENT
        assert VALUE not in repr(caught.value)
        assert VALUE not in str(caught.value.trailing_metadata())


async def test_an_agent_that_cannot_keep_them_is_told_of(node: Node, box: Sandbox) -> None:
    spec = Spec(argv=("true",), timeout_ns=HOUR_NS, secrets=("A",))
    async with Channel.open(node.runtime / "a" / box.uid, 5) as channel:
        reply = await channel.request(59, b"", 5)
    code, number, message = unpack(reply.payload)
    error = AgentError(ErrorCode(code.decode()), int(number), message.decode())
    assert isinstance(refusal(error, spec), AgentTooOld)
    assert isinstance(refusal(AgentError(ErrorCode.UNPROTECTED, 0, ""), spec), SecretsUnprotected)


async def test_prepared_starts_take_secrets_too(caller: Caller, box: Sandbox) -> None:
    for number in range(6):
        secrets = {"TOKEN": f"{VALUE}{number}"}
        done = await caller.execute(box, "echo $TOKEN; echo ${OTHER-none}", secrets=secrets)
        assert done.stdout.text == f"{VALUE}{number}\nnone\n"
        assert (await caller.execute(box, "echo ${TOKEN-none}")).stdout.text == "none\n"
