"""ForwardPort on a real sandbox: bytes both ways, and what is wrong with either side."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from services.executor.ports import checked
from tests.executor.node import Caller, Node, Sandbox, refused, until

Code = grpc.StatusCode
PYTHON = 'exec "$(command -v python3 || echo /.cove/python/bin/python3)" -I -c "$1"'
END = pb.ForwardPortRequest(end=pb.ForwardPortEnd())

SERVE = """
import socket, os, threading
listener = socket.socket(socket.{family})
listener.bind(("{host}", 0)); listener.listen({backlog})
with open("port.new", "w") as f: f.write(str(listener.getsockname()[1]))
os.rename("port.new", "port")
def serve(peer):
{serve}
{accept}
"""
ACCEPT = """
while True:
    peer, _ = listener.accept()
    threading.Thread(target=serve, args=(peer,)).start()
"""
ECHO = """
    while data := peer.recv(65536): peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
"""


@asynccontextmanager
async def serving(
    caller: Caller, box: Sandbox, serve: str, family: str = "AF_INET", **options: Any
) -> AsyncIterator[int]:
    """A server inside, started by one execution; its port."""
    host = "::1" if family == "AF_INET6" else "127.0.0.1"
    options = {"backlog": 64, "accept": ACCEPT} | options
    script = SERVE.format(family=family, host=host, serve=serve, **options)
    argv = ["sh", "-c", PYTHON, "sh", script]
    port = box.tree / "port"
    port.unlink(missing_ok=True)
    request = pb.StartExecutionRequest(
        handle=box.handle, execution=pb.Execution(spec=pb.ExecutionSpec(argv=argv))
    )
    await caller.executions.StartExecution(request)
    await until(_there(port))
    yield int(port.read_text())


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _there(path: Path) -> Any:
    async def there() -> bool:
        return path.exists()

    return there


class Forward:
    """One call, opened."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def send(self, data: bytes) -> None:
        await self.call.write(pb.ForwardPortRequest(data=data))

    async def end(self) -> None:
        await self.call.write(END)
        await self.call.done_writing()

    async def next(self) -> pb.ForwardPortResponse | None:
        """What comes next but heartbeats; None at the end."""
        while True:
            answer = await self.call.read()
            if answer is grpc.aio.EOF:
                if await self.call.code() is not Code.OK:
                    await self.call  # Raises.
                return None
            assert isinstance(answer, pb.ForwardPortResponse)
            if answer.WhichOneof("event") != "heartbeat":
                return answer

    async def bytes(self) -> bytes:
        """All up to the end of what comes from inside."""
        data = bytearray()
        while (answer := await self.next()) and answer.WhichOneof("event") == "data":
            data += answer.data
        assert answer is not None
        assert answer.HasField("end")
        return bytes(data)


@asynccontextmanager
async def forward(caller: Caller, box: Sandbox, port: int) -> AsyncIterator[Forward]:
    call = caller.executions.ForwardPort(timeout=60)
    try:
        target = pb.ForwardPortTarget(handle=box.handle, port=port)
        await call.write(pb.ForwardPortRequest(target=target))
        forwarded = Forward(call)
        opened = await forwarded.next()
        assert opened is not None
        assert opened.HasField("opened")
        yield forwarded
    finally:
        call.cancel()


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
async def test_bytes_go_both_ways_and_each_side_ends_its_own(
    caller: Caller, box: Sandbox, family: str
) -> None:
    async with serving(caller, box, ECHO, family) as port, forward(caller, box, port) as there:
        await there.send(b"one")
        answer = await there.next()
        assert answer is not None
        assert answer.data == b"one"
        whole = os.urandom(3 << 20)
        receiving = asyncio.create_task(there.bytes())
        for at in range(0, len(whole), 1 << 20):
            await there.send(whole[at : at + (1 << 20)])
        await there.end()
        assert await receiving == whole
        assert await there.next() is None


async def test_the_program_inside_may_end_first(caller: Caller, box: Sandbox) -> None:
    serve = """
    peer.sendall(b"hello"); peer.shutdown(socket.SHUT_WR)
    got = b""
    while data := peer.recv(65536): got += data
    open("got", "wb").write(got)
"""
    async with serving(caller, box, serve) as port, forward(caller, box, port) as there:
        assert await there.bytes() == b"hello"
        await there.send(b"goodbye")
        await there.end()
        assert await there.next() is None
        await until(_there(box.tree / "got"))


async def test_a_server_of_one_execution_is_reached_from_the_next(
    caller: Caller, box: Sandbox
) -> None:
    async with serving(caller, box, ECHO) as port:
        script = f"import socket; s = socket.create_connection(('127.0.0.1', {port})); "
        script += "s.sendall(b'from inside'); print(s.recv(64))"
        spec = pb.ExecutionSpec(argv=["sh", "-c", PYTHON, "sh", script])
        done = await caller.executions.Execute(pb.ExecuteRequest(handle=box.handle, spec=spec))
        assert done.stdout.text == "b'from inside'\n", done.stderr


async def test_where_nothing_listens_it_says_so(caller: Caller, box: Sandbox) -> None:
    with_code = refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_PORT_NOT_LISTENING)
    async with with_code, forward(caller, box, 9):
        pass


async def test_a_dormant_environment_is_told(caller: Caller, box: Sandbox, node: Node) -> None:
    await node.end(box)
    with_code = refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_ENVIRONMENT_DORMANT)
    async with with_code, forward(caller, box, 9):
        pass


async def test_a_reset_inside_is_told(caller: Caller, box: Sandbox) -> None:
    serve = """
    peer.recv(1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0"); peer.close()
"""
    with_code = refused(Code.ABORTED, Why.ERROR_REASON_PORT_RESET)
    async with serving(caller, box, serve) as port, forward(caller, box, port) as there, with_code:
        await there.send(b"x")
        await there.next()


@pytest.mark.parametrize("how", ["cancel", "no end", "second target"])
async def test_a_caller_that_breaks_off_resets_it(caller: Caller, box: Sandbox, how: str) -> None:
    serve = """
    try:
        peer.sendall(b"x")
        while peer.recv(65536): pass
        seen = "end"
    except ConnectionResetError: seen = "reset"
    open("seen.new", "w").write(seen); os.rename("seen.new", "seen")
"""
    async with serving(caller, box, serve) as port, forward(caller, box, port) as there:
        assert await there.next()
        if how == "cancel":
            there.call.cancel()
        elif how == "no end":
            await there.call.done_writing()
        else:
            target = pb.ForwardPortTarget(handle=box.handle, port=port)
            await there.call.write(pb.ForwardPortRequest(target=target))
        await until(_there(box.tree / "seen"))
        assert (box.tree / "seen").read_text() == "reset"


async def test_an_early_answer_arrives_though_nobody_reads_the_rest(
    caller: Caller, box: Sandbox
) -> None:
    serve = """
    peer.sendall(b"enough")
    while peer.recv(65536): pass
    peer.close()
"""
    async with serving(caller, box, serve) as port, forward(caller, box, port) as there:
        await there.send(b"y" * 100_000)
        await there.end()
        assert await there.bytes() == b"enough"


async def test_connections_of_an_environment_are_bounded(caller: Caller, box: Sandbox) -> None:
    async with serving(caller, box, ECHO) as port:
        calls = [forward(caller, box, port) for _ in range(64)]
        opened = [await each.__aenter__() for each in calls]
        with_code = refused(Code.RESOURCE_EXHAUSTED, Why.ERROR_REASON_PORT_LIMIT)
        async with with_code, forward(caller, box, port):
            pass
        await calls[0].__aexit__(None, None, None)

        async def free() -> bool:
            try:
                async with forward(caller, box, port):
                    return True
            except grpc.aio.AioRpcError:
                return False

        await until(free)
        await opened[1].send(b"still")
        answer = await opened[1].next()
        assert answer is not None
        assert answer.data == b"still"
        for each in calls[1:]:
            await each.__aexit__(None, None, None)


async def test_who_does_not_read_holds_up_who_writes(caller: Caller, box: Sandbox) -> None:
    """In both directions, and nothing in between grows by what was written."""
    serve = """
    total = 0
    peer.setblocking(False)
    import select
    while select.select([], [peer], [], 1)[1] and total < (1 << 28):
        total += peer.send(b"z" * 65536)
    open("total.new", "w").write(str(total)); os.rename("total.new", "total")
"""
    async with serving(caller, box, serve) as port, forward(caller, box, port):
        await until(_there(box.tree / "total"), 30)
        assert int((box.tree / "total").read_text()) < 32 << 20
    idle = "\n    import time; time.sleep(60)\n"
    async with serving(caller, box, idle) as port, forward(caller, box, port) as there:
        sent = 0
        with suppress(TimeoutError):
            while sent < 1 << 28:
                async with asyncio.timeout(1):
                    await there.send(b"z" * (1 << 20))
                sent += 1 << 20
        assert sent < 32 << 20


@pytest.mark.parametrize("what", ["file", "directory", "pipe", "unix", "udp", "listener", "ours"])
def test_what_is_no_connection_inside_is_refused(what: str, tmp_path: Path) -> None:
    """What a hostile agent may send; the last one is TCP, connected, and in our own network."""
    made: list[socket.socket] = []
    if what == "file":
        descriptor = os.open(tmp_path / "f", os.O_CREAT | os.O_RDWR)
    elif what == "directory":
        descriptor = os.open(tmp_path, os.O_RDONLY)
    elif what == "pipe":
        descriptor, other = os.pipe()
        os.close(other)
    elif what == "unix":
        made = list(socket.socketpair())
        descriptor = os.dup(made[0].fileno())
    elif what == "udp":
        made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
        descriptor = os.dup(made[0].fileno())
    else:
        made = [socket.create_server(("127.0.0.1", 0))]
        if what == "ours":
            made.append(socket.create_connection(made[0].getsockname()))
        descriptor = os.dup(made[-1].fileno())
    before = _descriptors()
    assert checked(descriptor, socket.AF_INET) is None
    assert _descriptors() == before - 1
    for each in made:
        each.close()
