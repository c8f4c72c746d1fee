"""One RPC of the gateway whose answer is ready: behind all that a call goes through, on the loop
that the gateway has (`whole`), or bare, on Python's loop (`bare`) and on that one (`fast`)."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from cove.gateway.v1 import gateway_pb2 as pb
from gateway.config import Config
from gateway.identity.file import FileAuthenticator
from servicekit import logs
from servicekit.loops import fast
from servicekit.rates import Limiter, Rates
from servicekit.server import serving
from servicekit.status import Context
from servicekit.strangers import Guarded

TOKEN = "token"
SERVICE = "cove.gateway.v1.WorkspaceService"
ANSWER = pb.GetWorkspaceResponse(
    workspace=pb.Workspace(name="workspaces/bench", uid="a" * 16, etag="x" * 16)
)


async def ready(_request: pb.GetWorkspaceRequest, _context: Context) -> pb.GetWorkspaceResponse:
    return ANSWER


def add(server: grpc.aio.Server) -> None:
    """Have `server` serve it."""
    handler = grpc.unary_unary_rpc_method_handler(
        ready,
        request_deserializer=pb.GetWorkspaceRequest.FromString,
        response_serializer=pb.GetWorkspaceResponse.SerializeToString,
    )
    generic = grpc.method_handlers_generic_handler(SERVICE, {"GetWorkspace": handler})
    server.add_generic_rpc_handlers((generic,))


@asynccontextmanager
async def _bare(address: str) -> AsyncIterator[None]:
    server = grpc.aio.server()
    add(server)
    server.add_insecure_port(address)
    await server.start()
    yield
    await server.stop(0)


@asynccontextmanager
async def _whole(folder: Path, address: str) -> AsyncIterator[None]:
    config = Config(state=folder, runtime=folder, address=(address,))
    rates = Rates(read=10**6, open_calls=config.open_calls, total_calls=config.total_calls)
    async with serving(
        config,
        {SERVICE: add},
        authenticator=Guarded(FileAuthenticator(folder / "token"), config.stranger_rate),
        admission=Limiter(rates),
    ):
        yield


async def _serve(kind: str, folder: Path) -> None:
    address = f"unix:{folder}/{kind}"
    async with _whole(folder, address) if kind == "whole" else _bare(address):
        gc.collect()
        gc.freeze()  # As `servicekit.main` does.
        print(address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    logs.set_up("gateway", "info", Path("/dev/null").open("w"))  # noqa: SIM115 - to its end.
    kind = sys.argv[1]
    with asyncio.Runner(loop_factory=asyncio.new_event_loop if kind == "bare" else fast) as runner:
        runner.run(_serve(kind, Path(sys.argv[2])))
