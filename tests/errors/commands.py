"""Commands, their input and output, files, archives and ports."""

import asyncio
import io
import tarfile
from typing import Any

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from services.executor import ports
from tests.errors.cases import GRPC, provokes
from tests.errors.doors import Refusal
from tests.errors.world import Try, limited

OPEN = executor_pb2.ExecutionSpec.STDIN_OPEN


async def execute(t: Try, name: str = "", **spec: Any) -> Refusal:
    wanted = executor_pb2.ExecutionSpec(**spec)
    request = pb.ExecuteRequest(name=name or await t.shared(), spec=wanted)
    return await t.door.ask("Execute", request)


async def began(t: Try, id_: str, script: str, **spec: Any) -> str:
    """A command in the shared workspace, which runs; the same one where it was begun before."""
    return await t.start(await t.shared(), id_, script, **spec)


@provokes("EXECUTION_NOT_FOUND", "NOT_FOUND")
async def execution_not_found(t: Try) -> Refusal:
    name = f"{await t.shared()}/executions/none"
    return await t.door.ask("GetExecution", pb.GetExecutionRequest(name=name))


@provokes("EXECUTION_EXISTS", "ALREADY_EXISTS")
async def execution_exists(t: Try) -> Refusal:
    await began(t, "one", "true")
    execution = executor_pb2.Execution(spec=executor_pb2.ExecutionSpec(script="false"))
    request = pb.StartExecutionRequest(
        parent=await t.shared(), execution_id="one", execution=execution
    )
    return await t.door.ask("StartExecution", request)


@provokes("PROGRAM_NOT_FOUND", "NOT_FOUND")
async def program_not_found(t: Try) -> Refusal:
    return await execute(t, argv=["no-such-program"])


@provokes("PROGRAM_NOT_EXECUTABLE", "PERMISSION_DENIED")
async def program_not_executable(t: Try) -> Refusal:
    return await execute(t, argv=["/etc/passwd"])


@provokes("CWD_NOT_FOUND", "NOT_FOUND")
async def cwd_not_found(t: Try) -> Refusal:
    return await execute(t, argv=["true"], cwd="no/such/place")


@provokes("EXECUTION_ENDED", "FAILED_PRECONDITION")
async def execution_ended(t: Try) -> Refusal:
    name = await began(t, "over", "true")
    await t.ok("WaitExecution", pb.WaitExecutionRequest(name=name))
    request = pb.SignalExecutionRequest(name=name, signal=executor_pb2.SIGNAL_TERM)
    return await t.door.ask("SignalExecution", request)


@provokes("EXECUTION_RUNNING", "FAILED_PRECONDITION")
async def execution_running(t: Try) -> Refusal:
    name = await began(t, "going", "exec sleep 1000")
    return await t.door.ask("DeleteExecution", pb.DeleteExecutionRequest(name=name))


@provokes("OFFSET_OUT_OF_RANGE", "OUT_OF_RANGE")
async def offset_out_of_range(t: Try) -> Refusal:
    name = await began(t, "short", "echo x")
    await t.ok("WaitExecution", pb.WaitExecutionRequest(name=name))
    return await t.door.ask("ReadOutput", pb.ReadOutputRequest(name=name, from_offset=99))


@provokes("PROCESS_LIMIT", "RESOURCE_EXHAUSTED", root=True)
async def process_limit(t: Try) -> Refusal:
    """One command more than there may be processes."""
    limits = {"processes": 6}
    name = await t.workspace("few", limits=limits)
    for number in range(8):
        spec = executor_pb2.ExecutionSpec(script="exec sleep 1000")
        request = pb.StartExecutionRequest(
            parent=name, execution_id=f"s{number}", execution=executor_pb2.Execution(spec=spec)
        )
        try:
            refused = await t.door.ask("StartExecution", request)
        except AssertionError:
            continue
        break
    return refused


@provokes("INPUT_NOT_OPEN", "FAILED_PRECONDITION")
async def input_not_open(t: Try) -> Refusal:
    name = await began(t, "deaf", "exec sleep 1000")
    return await t.door.ask("WriteInput", pb.WriteInputRequest(name=name, offset=0, data=b"x"))


@provokes("INPUT_CLOSED", "FAILED_PRECONDITION")
async def input_closed(t: Try) -> Refusal:
    name = await began(t, "closed", "cat; exec sleep 1000", stdin=OPEN)
    await t.ok("WriteInput", pb.WriteInputRequest(name=name, offset=0, data=b"ab", close=True))
    return await t.door.ask("WriteInput", pb.WriteInputRequest(name=name, offset=2, data=b"c"))


@provokes("INPUT_GAP", "OUT_OF_RANGE")
async def input_gap(t: Try) -> Refusal:
    name = await began(t, "gap", "cat", stdin=OPEN)
    return await t.door.ask("WriteInput", pb.WriteInputRequest(name=name, offset=9, data=b"x"))


@provokes("INPUT_HELD", "FAILED_PRECONDITION")
async def input_held(t: Try) -> Refusal:
    name = await began(t, "held", "cat", stdin=OPEN)
    await t.ok(
        "WriteInput", pb.WriteInputRequest(name=name, offset=0, data=b"a", writer="somebody")
    )
    request = pb.WriteInputRequest(name=name, offset=1, data=b"b", writer="another")
    return await t.door.ask("WriteInput", request)


@provokes("TERMINAL_NOT_OPEN", "FAILED_PRECONDITION")
async def terminal_not_open(t: Try) -> Refusal:
    name = await began(t, "plain", "exec sleep 1000")
    size = executor_pb2.Terminal(rows=1, cols=2)
    request = pb.ResizeTerminalRequest(name=name, terminal=size)
    return await t.door.ask("ResizeTerminal", request)


@provokes("SECRET_NOT_FOUND", "NOT_FOUND")
async def secret_not_found(t: Try) -> Refusal:
    return await execute(t, argv=["true"], secrets={"KEY": ""})


@provokes("FILE_NOT_FOUND", "NOT_FOUND")
async def file_not_found(t: Try) -> Refusal:
    return await t.door.ask("StatFile", pb.StatFileRequest(name=await t.shared(), path="none"))


@provokes("PATH_OUTSIDE", "INVALID_ARGUMENT")
async def path_outside(t: Try) -> Refusal:
    request = pb.StatFileRequest(name=await t.shared(), path="../etc/passwd")
    return await t.door.ask("StatFile", request)


@provokes("PATH_TOO_LONG", "INVALID_ARGUMENT")
async def path_too_long(t: Try) -> Refusal:
    return await t.door.ask("StatFile", pb.StatFileRequest(name=await t.shared(), path="x" * 300))


@provokes("WRONG_FILE_TYPE", "FAILED_PRECONDITION")
async def wrong_file_type(t: Try) -> Refusal:
    return await t.door.ask(
        "ListFiles", pb.ListFilesRequest(name=await t.shared(), path="hello.txt")
    )


@provokes("FILE_EXISTS", "ALREADY_EXISTS")
async def file_exists(t: Try) -> Refusal:
    header = pb.WriteFileHeader(name=await t.shared(), path="hello.txt", must_not_exist=True)
    return await t.door.ask("WriteFile", *upload(header, b"x"))


@provokes("FILE_CHANGED", "ABORTED")
async def file_changed(t: Try) -> Refusal:
    header = pb.WriteFileHeader(name=await t.shared(), path="hello.txt", etag="older")
    return await t.door.ask("WriteFile", *upload(header, b"x"))


@provokes("DIRECTORY_NOT_EMPTY", "FAILED_PRECONDITION")
async def directory_not_empty(t: Try) -> Refusal:
    name = await t.shared()
    await t.run(name, "mkdir -p full; touch full/x")
    return await t.door.ask("RemoveFile", pb.RemoveFileRequest(name=name, path="full"))


@provokes("FILE_PERMISSION", "PERMISSION_DENIED")
async def file_permission(t: Try) -> Refusal:
    name = await t.shared()
    await t.run(name, "mkdir -p locked; chmod 500 locked")
    header = pb.WriteFileHeader(name=name, path="locked/x")
    return await t.door.ask("WriteFile", *upload(header, b"x"))


@provokes("UPLOAD_INCOMPLETE", "ABORTED", doors=(GRPC,))
async def upload_incomplete(t: Try) -> Refusal:
    """Over HTTP the connection would break off, so that nobody is there to be told."""
    header = pb.WriteFileHeader(name=await t.shared(), path="half")
    return await t.door.ask("WriteFile", *upload(header, b"x")[:-1])


@provokes("ARCHIVE_INVALID", "INVALID_ARGUMENT")
async def archive_invalid(t: Try) -> Refusal:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    header = pb.WriteArchiveHeader(name=await t.shared(), path="into")
    return await t.door.ask("WriteArchive", *unpack(header, made.getvalue()))


@provokes("ARCHIVE_TOO_LARGE", "RESOURCE_EXHAUSTED")
async def archive_too_large(t: Try) -> Refusal:
    """A file is announced that is larger than any may be."""
    info = tarfile.TarInfo("huge")
    info.size = 1 << 50
    header = pb.WriteArchiveHeader(name=await t.shared(), path="into")
    return await t.door.ask("WriteArchive", *unpack(header, info.tobuf(tarfile.GNU_FORMAT)))


@provokes("AGENT_UNAVAILABLE", "UNAVAILABLE")
async def agent_unavailable(t: Try) -> Refusal:
    """The sandbox ends while a file is on its way to it."""
    name = await t.workspace("short-lived")
    await t.run(name, "true")
    held = t.stage.executor.hold("WriteFile")
    header = pb.WriteFileHeader(name=name, path="new")
    writing = asyncio.create_task(t.door.ask("WriteFile", *upload(header, b"x")))
    await held.reached.wait()
    await t.stage.end_sandbox(name.removeprefix("workspaces/"))
    t.stage.heal()
    return await writing


def upload(header: pb.WriteFileHeader, data: bytes) -> tuple[pb.WriteFileRequest, ...]:
    end = executor_pb2.WriteFileEnd(bytes=len(data))
    return (
        pb.WriteFileRequest(header=header),
        pb.WriteFileRequest(data=data),
        pb.WriteFileRequest(end=end),
    )


def unpack(header: pb.WriteArchiveHeader, data: bytes) -> tuple[pb.WriteArchiveRequest, ...]:
    end = executor_pb2.WriteFileEnd(bytes=len(data))
    return (
        pb.WriteArchiveRequest(header=header),
        pb.WriteArchiveRequest(data=data),
        pb.WriteArchiveRequest(end=end),
    )


@provokes("PORT_NOT_LISTENING", "FAILED_PRECONDITION", doors=(GRPC,))
async def port_not_listening(t: Try) -> Refusal:
    target = pb.ForwardPortTarget(name=await t.shared(), port=9)
    return await t.door.ask("ForwardPort", pb.ForwardPortRequest(target=target))


@provokes("PORT_RESET", "ABORTED", doors=(GRPC,))
async def port_reset(t: Try) -> Refusal:
    """A server that hangs up rudely."""
    name = await t.shared()
    script = (
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "peer, _ = server.accept(); peer.recv(1)\n"
        "peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *[0] * 7])); peer.close()\n"
    )
    execution = await t.start(name, "rude", f'exec python3 -c "{script}"')
    port = int(await t.said(execution, b"\n"))
    target = pb.ForwardPortTarget(name=name, port=port)
    return await t.door.ask(
        "ForwardPort",
        pb.ForwardPortRequest(target=target),
        pb.ForwardPortRequest(data=b"xy"),
        pb.ForwardPortRequest(end=executor_pb2.ForwardPortEnd()),
    )


@provokes("PORT_LIMIT", "RESOURCE_EXHAUSTED", doors=(GRPC,))
async def port_limit(t: Try) -> Refusal:
    """One connection more than there may be."""
    target = pb.ForwardPortTarget(name=await t.shared(), port=9)
    with limited(ports, "_MOST", 0):
        return await t.door.ask("ForwardPort", pb.ForwardPortRequest(target=target))
