"""Input and terminals, called as a client calls them, on a real sandbox."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from agent.client import AgentError, ErrorCode
from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from servicekit.status import reason, told
from services.executor.command import refusal
from services.executor.errors import AgentTooOld
from services.executor.record import Spec
from tests.executor.node import Caller, Node, Sandbox, calling, refused, until

Code = grpc.StatusCode
OPEN = pb.ExecutionSpec.STDIN_OPEN
SIZE = pb.Terminal(rows=24, cols=80)
FULL = 400 << 10


async def write(
    caller: Caller, box: Sandbox, name: str, offset: int, data: bytes, **fields: Any
) -> pb.WriteInputResponse:
    request = pb.WriteInputRequest(name=box.name(name), offset=offset, data=data, **fields)
    return await caller.executions.WriteInput(request)


class Seat:
    """Somebody who is attached."""

    def __init__(self, caller: Caller, opening: pb.AttachRequest.Open) -> None:
        self.call = caller.executions.Attach(timeout=40)
        self._events = aiter(self.call)
        self._opening = opening
        self.output = b""

    async def __aenter__(self) -> "Seat":
        await self.call.write(pb.AttachRequest(open=self._opening))
        self.first = (await self.event()).execution
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()

    async def event(self) -> pb.AttachResponse:
        found: pb.AttachResponse = await anext(self._events)
        self.output += found.chunk.data
        return found

    async def until(self, done: Any) -> pb.AttachResponse:
        while not done(event := await self.event()):
            pass
        return event

    async def type(self, data: bytes, **fields: Any) -> None:
        await self.call.write(pb.AttachRequest(input=pb.AttachRequest.Input(data=data, **fields)))

    async def exit(self) -> pb.Exit:
        return (await self.until(lambda event: event.HasField("exit"))).exit


def seat(caller: Caller, box: Sandbox, name: str, **fields: Any) -> Seat:
    return Seat(caller, pb.AttachRequest.Open(name=box.name(name), **fields))


async def test_input_is_written_and_closed(caller: Caller, box: Sandbox) -> None:
    started = await caller.start(box, "one", "cat", stdin=OPEN)
    assert (started.spec.stdin, started.input_bytes) == (OPEN, 0)
    assert (await write(caller, box, "one", 0, b"abc")).offset == 3
    assert (await caller.get(box, "one")).input_bytes == 3
    assert (await write(caller, box, "one", 1, b"bcd")).offset == 4
    answer = await write(caller, box, "one", 4, b"", close=True)
    assert (answer.offset, answer.closed) == (4, True)
    ended = await caller.wait(box, "one")
    assert (ended.input_bytes, ended.input_closed) == (4, True)
    assert await caller.output(box, "one") == b"abcd"
    # A repeat is one also after the end; something new is told to come too late.
    assert (await write(caller, box, "one", 0, b"abcd", close=True)).offset == 4
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_EXECUTION_ENDED):
        await write(caller, box, "one", 4, b"e")


async def test_what_cannot_be_written_is_refused(caller: Caller, box: Sandbox) -> None:
    script = "until [ -e go ]; do sleep 0.02; done"
    await caller.start(box, "none", script)
    await caller.start(box, "open", script, stdin=OPEN)
    await caller.start(box, "term", script, terminal=SIZE)
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_INPUT_NOT_OPEN):
        await write(caller, box, "none", 0, b"a")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await write(caller, box, "open", 5, b"a")
    assert caught.value.code() is Code.OUT_OF_RANGE
    assert b"expected\x12\x010" in told(caught.value).SerializeToString()  # type: ignore[union-attr]
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_INVALID_FIELD):
        await write(caller, box, "term", 0, b"a", close=True)
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_INVALID_FIELD):
        await caller.executions.WriteInput(pb.WriteInputRequest(name=box.name("open"), data=b"a"))
    resize = pb.ResizeTerminalRequest(name=box.name("open"), terminal=SIZE)
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_TERMINAL_NOT_OPEN):
        await caller.executions.ResizeTerminal(resize)
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_EXECUTION_NOT_FOUND):
        await write(caller, box, "nobody", 0, b"a")
    (box.tree / "go").touch()
    await asyncio.gather(*(caller.wait(box, each) for each in ("none", "open", "term")))


async def test_much_is_streamed_as_fast_as_it_is_read(caller: Caller, box: Sandbox) -> None:
    await caller.start(box, "sum", "until [ -e go ]; do sleep 0.02; done; wc -c", stdin=OPEN)
    sent = 0

    async def pieces() -> AsyncIterator[pb.StreamInputRequest]:
        nonlocal sent
        yield pb.StreamInputRequest(name=box.name("sum"), offset=0)
        for _ in range(40):
            yield pb.StreamInputRequest(data=bytes(256 << 10))
            sent += 1
        yield pb.StreamInputRequest(close=True)

    streaming = asyncio.ensure_future(caller.executions.StreamInput(pieces(), timeout=40))
    await until(lambda: _false_or(sent > 0))
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_INPUT_HELD):
        await until(lambda: _write(caller, box))
    assert sent < 40
    (box.tree / "go").touch()
    answer = await streaming
    assert (answer.offset, answer.closed) == (40 * (256 << 10), True)
    assert (await caller.output(box, "sum")).strip() == b"%d" % (40 * (256 << 10))


async def _write(caller: Caller, box: Sandbox) -> bool:
    await write(caller, box, "sum", 0, b"")
    return False


async def _false_or(done: bool) -> bool:
    return done


async def test_a_terminal_from_the_first_key_to_the_end(caller: Caller, box: Sandbox) -> None:
    spec = pb.ExecutionSpec(argv=["sh"], terminal=SIZE)
    start = pb.StartExecutionRequest(
        handle=box.handle, execution=pb.Execution(spec=spec), request_id=str(uuid.uuid4())
    )
    async with Seat(caller, pb.AttachRequest.Open(start=start)) as person:
        assert person.first.spec.stdin == OPEN
        await person.call.write(pb.AttachRequest(resize=pb.Terminal(rows=40, cols=132)))
        await person.type(b"stty size; echo $TERM\r")
        await person.until(lambda _: b"xterm-256color\r\n" in person.output)
        assert b"40 132\r\n" in person.output
        await person.type(b"exit 7\r")
        assert (await person.exit()).code == 7
    name = person.first.name.rpartition("/")[2]
    ended = await caller.get(box, name)
    assert ended.input_bytes == len(b"stty size; echo $TERM\rexit 7\r")
    streams = {
        event.chunk.stream async for event in caller.read(box, name) if event.HasField("chunk")
    }
    assert streams == {pb.Chunk.STREAM_TERMINAL}


async def test_many_look_on_and_one_writes(caller: Caller, box: Sandbox) -> None:
    await caller.start(box, "cat", "cat", stdin=OPEN)
    async with (
        seat(caller, box, "cat") as first,
        seat(caller, box, "cat", read_only=True) as looking,
    ):
        await first.type(b"1\n")
        for each in (first, looking):
            await each.until(lambda _, each=each: each.output == b"1\n")
        async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_INPUT_HELD):
            await seat(caller, box, "cat").__aenter__()
        async with seat(caller, box, "cat", take_over=True) as second:
            assert second.first.input_bytes == 2
            assert (await first.until(lambda event: event.input.lost)).input.lost
            await second.type(b"2\n")
            await looking.until(lambda _: looking.output == b"1\n2\n")
            await second.until(lambda event: event.input.offset == 4)
        await until(lambda: free(caller, box, "cat"))  # As soon as the second one has left.
        async with seat(caller, box, "cat", writer="third") as third:
            await third.type(b"", close=True)
            assert (await third.exit()).code == 0
        assert (await looking.exit()).code == 0


async def free(caller: Caller, box: Sandbox, name: str) -> bool:
    try:
        await write(caller, box, name, 0, b"")
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_who_only_looks_on_cannot_type(caller: Caller, box: Sandbox) -> None:
    await caller.start(box, "cat", "cat", stdin=OPEN)
    async with (
        refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_INVALID_FIELD),
        seat(caller, box, "cat", read_only=True) as looking,
    ):
        await looking.type(b"x")
        await looking.event()
    await write(caller, box, "cat", 0, b"", close=True)


async def test_a_command_that_does_not_read_is_seen_all_the_same(
    caller: Caller, box: Sandbox
) -> None:
    script = "echo before; until [ -e go ]; do sleep 0.02; done; echo after"
    await caller.start(box, "deaf", script, stdin=OPEN)
    async with seat(caller, box, "deaf") as person:
        await person.type(bytes(FULL))
        await person.until(lambda _: person.output == b"before\n")
        (box.tree / "go").touch()
        assert (await person.exit()).code == 0
        assert person.output == b"before\nafter\n"


@pytest.mark.parametrize("terminal", [False, True])
async def test_input_goes_on_after_the_executor_was_killed(
    node: Node, box: Sandbox, terminal: bool
) -> None:
    fields: dict[str, Any] = {"terminal": SIZE} if terminal else {"stdin": OPEN}
    with node.process() as first:
        async with calling(first.address) as caller:
            await caller.start(box, "cat", "stty raw -echo 2> /dev/null; echo; cat", **fields)
            async with seat(caller, box, "cat", writer="me") as person:
                await person.until(lambda _: person.output == b"\n")
                await person.type(b"one")
                await person.until(lambda _: person.output == b"\none")
                first.kill()
    async with node.executor() as caller:
        # The same writer comes again, and repeats what it does not know the fate of.
        async with seat(caller, box, "cat", writer="me") as person:
            assert person.first.input_bytes == 3
            await person.type(b"onetwo", offset=0)
            await person.until(lambda _: person.output == b"\nonetwo")
        await caller.signal(box, "cat", 15)
        assert (await caller.wait(box, "cat")).input_bytes == 6


def test_an_agent_that_knows_no_input_is_told_as_too_old() -> None:
    """As one of an earlier version answers a request that it does not know."""
    unknown = AgentError(ErrorCode.BAD_REQUEST, 0, "unknown request")
    spec = Spec(argv=("cat",), timeout_ns=1, stdin=True)
    assert isinstance(refusal(unknown, spec), AgentTooOld)
    assert not isinstance(refusal(unknown, Spec(argv=("cat",), timeout_ns=1)), AgentTooOld)


def test_a_record_without_input_is_read_as_one() -> None:
    """As written by earlier versions."""
    values = {"argv": ["a"], "script": "", "interpreter": "", "cwd": "", "env": {}}
    spec = Spec.from_json({**values, "merge_stderr": False, "timeout_ns": 1})
    assert not spec.has_input


async def test_secrets_and_a_terminal_go_together(caller: Caller, box: Sandbox) -> None:
    script = 'read x; echo "$x $KEY"'
    fields: dict[str, Any] = {"secrets": {"KEY": "hidden-value"}, "redact": True}
    try:
        await caller.start(box, "both", script, terminal=SIZE, **fields)
    except grpc.aio.AioRpcError as error:
        if reason(error) != Why.ERROR_REASON_SECRETS_UNPROTECTED:
            raise
        return  # This kernel keeps no secrets.
    await write(caller, box, "both", 0, b"hidden-value\r")
    await caller.wait(box, "both")
    output = await caller.output(box, "both")
    assert output.endswith(b"*** ***\r\n")
    assert b"hidden" not in output
