"""A service of all four shapes whose behaviour a test chooses."""

import importlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Final

import grpc
from google.protobuf import descriptor_pb2, duration_pb2
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection_pb2
from grpc_tools import protoc

from buf.validate import validate_pb2
from cove.options.v1 import options_pb2
from servicekit.config import ServerConfig
from servicekit.identity import Authenticator
from servicekit.rates import Admission, everyone
from servicekit.server import Served, serving
from servicekit.status import Context

SERVICE: Final = "cove.kittest.v1.KitService"
HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class KitConfig(ServerConfig):
    service: ClassVar[str] = "kit"


@dataclass(frozen=True)
class Protos:
    """The modules that were generated from kit_test.proto."""

    pb: Any
    grpc: Any


def generate(folder: Path) -> Protos:
    """Generate kit_test.proto; what it imports comes out of the descriptors that are loaded."""
    known = descriptor_pb2.FileDescriptorSet()
    for module in (duration_pb2, validate_pb2, options_pb2):
        _add(known, module.DESCRIPTOR)
    (folder / "known.binpb").write_bytes(known.SerializeToString())
    # Without the compiler's own, those of Debian's protobuf would come first where it is.
    own = files("grpc_tools").joinpath("_proto")
    arguments = [f"--descriptor_set_in={folder}/known.binpb", f"-I{HERE}", f"-I{own}"]
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}", "kit_test.proto"]
    assert protoc.main(["protoc", *arguments, *outputs]) == 0
    sys.path.insert(0, str(folder))
    try:
        return Protos(
            importlib.import_module("kit_test_pb2"), importlib.import_module("kit_test_pb2_grpc")
        )
    finally:
        sys.path.remove(str(folder))


def _add(known: descriptor_pb2.FileDescriptorSet, file: FileDescriptor) -> None:
    if any(each.name == file.name for each in known.file):
        return
    for dependency in file.dependencies:
        _add(known, dependency)
    known.file.add().ParseFromString(file.serialized_pb)


@dataclass
class Servicer:
    """Handlers that do what the test put in."""

    protos: Protos
    say: Callable[[Any], Awaitable[str]]
    count: Callable[[Any], AsyncIterator[str]]
    cleaned: list[str] = field(default_factory=list)

    async def Say(self, request: Any, context: Context) -> Any:
        return self.protos.pb.SayResponse(text=await self.say(request))

    SayQuickly = Say
    SayUnlisted = Say

    async def Count(self, request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for text in self.count(request):
                yield self.protos.pb.SayResponse(text=text)
        finally:
            self.cleaned.append("Count")

    async def CountByWriting(self, request: Any, context: Context) -> None:
        async for text in self.count(request):
            await context.write(self.protos.pb.SayResponse(text=text))

    async def Join(self, requests: AsyncIterator[Any], context: Context) -> Any:
        return self.protos.pb.SayResponse(text="".join([each.text async for each in requests]))

    async def Echo(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async for request in requests:
            yield self.protos.pb.SayResponse(text=request.text)


async def echo(request: Any) -> str:
    return str(request.text)


async def three(request: Any) -> AsyncIterator[str]:
    for number in range(3):
        yield f"{request.text}{number}"


@dataclass
class Kit:
    """A running kit server and a plain channel to it."""

    served: Served
    channel: grpc.aio.Channel
    stub: Any
    servicer: Servicer
    pb: Any


@asynccontextmanager
async def running(
    protos: Protos,
    folder: Path,
    *,
    say: Callable[[Any], Awaitable[str]] = echo,
    count: Callable[[Any], AsyncIterator[str]] = three,
    authenticator: Authenticator | None = None,
    admission: Admission = everyone,
    **changes: Any,
) -> AsyncIterator[Kit]:
    """Serve while the block runs; `changes` are fields of the config."""
    config = KitConfig(
        state=folder / "s", runtime=folder / "r", shutdown_grace=timedelta(seconds=5)
    )
    servicer = Servicer(protos, say, count)
    add = partial(protos.grpc.add_KitServiceServicer_to_server, servicer)
    async with (
        serving(
            replace(config, **changes),
            {SERVICE: add},
            authenticator=authenticator,
            admission=admission,
        ) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        yield Kit(served, channel, protos.grpc.KitServiceStub(channel), servicer, protos.pb)


async def reflecting(channel: grpc.aio.Channel, version: str = "v1") -> Any:
    """A call of reflection that goes on, and has answered once."""
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = reflection_pb2.ServerReflectionResponse
    method: Any = channel.stream_stream(path, type(asked).SerializeToString, answer.FromString)
    made = method()
    await made.write(asked)
    assert (await made.read()).list_services_response.service
    return made
