"""The two ways in, gRPC and HTTP, and how a call was refused there."""

import json
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Protocol

import grpc
import httpx
from google.api import annotations_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from cove.ended import First
from cove.gateway.v1 import gateway_pb2 as pb
from cove.options.v1 import options_pb2  # noqa: F401 - the options of methods.
from gateway.rest.template import VARIABLE

PATIENCE: Final = 30.0
_BINARY: Final = "grpc-status-details-bin"
_RAW: Final = ("PUT", "data")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """How a call ended that must not succeed."""

    status: status_pb2.Status
    http: int | None = None
    """Status of HTTP; None over gRPC, and where a stream said it in its last line."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of HTTP, or the trailing metadata of gRPC."""
    error: grpc.aio.AioRpcError | None = None

    @property
    def code(self) -> grpc.StatusCode:
        return next(each for each in grpc.StatusCode if each.value[0] == self.status.code)

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        return self.detail(error_details_pb2.ErrorInfo) or error_details_pb2.ErrorInfo()

    @property
    def reason(self) -> str:
        return str(self.info.reason).removeprefix("ERROR_REASON_")

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.info.metadata)

    @property
    def remedy(self) -> str:
        said = self.detail(error_details_pb2.LocalizedMessage)
        return str(said.message) if said else ""

    @property
    def retry_after(self) -> float | None:
        said = self.detail(error_details_pb2.RetryInfo)
        return float(said.retry_delay.ToTimedelta().total_seconds()) if said else None

    @property
    def text(self) -> str:
        """All that the caller is told."""
        return f"{json_format.MessageToJson(self.status, ensure_ascii=False)}\n{self.headers}"

    def detail(self, kind: Any) -> Any:
        found = kind()
        return next((found for each in self.status.details if each.Unpack(found)), None)


class Door(Protocol):
    """A way in."""

    @property
    def name(self) -> str: ...

    async def ask(
        self, rpc: str, *requests: Message, timeout: float = PATIENCE, **headers: str
    ) -> Refusal:
        """Make a call that must be refused. `headers` go with it; `authorization` is the usual
        one where none is given."""
        ...


@dataclass(frozen=True)
class Grpc:
    channel: grpc.aio.Channel
    token: str
    name: str = "grpc"
    file: FileDescriptor = pb.DESCRIPTOR
    """Whose services are behind it."""
    always: Mapping[str, str] = field(default_factory=dict)
    """Metadata of every call."""

    async def ask(
        self, rpc: str, *requests: Message, timeout: float = PATIENCE, **headers: str
    ) -> Refusal:
        try:
            await self.call(rpc, *requests, timeout=timeout, **headers)
        except grpc.aio.AioRpcError as error:
            return _of_grpc(error)
        raise AssertionError(f"{rpc} was not refused")

    async def call(
        self, rpc: str, *requests: Message, timeout: float = PATIENCE, **headers: str
    ) -> Any:
        """The answer, or the last one of a stream."""
        method = method_of(rpc, self.file)
        answer = message_factory.GetMessageClass(method.output_type)
        kinds: dict[tuple[bool, bool], Any] = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }
        make = kinds[method.client_streaming, method.server_streaming]
        path = f"/{method.containing_service.full_name}/{method.name}"
        sent: Any = iter(requests) if method.client_streaming else requests[0]
        multi: Callable[..., Any] = make(path, _packed, answer.FromString)
        bearer = f"Bearer {self.token}" if self.token else ""
        shown = {"authorization": bearer, **self.always, **headers}
        metadata = [(key.replace("_", "-"), value) for key, value in shown.items() if value]
        call = multi(sent, metadata=metadata, timeout=timeout)
        first = First(call)
        try:
            if not method.server_streaming:
                return await call
            return [answer async for answer in call][-1:]
        except grpc.aio.AioRpcError as error:
            raise first.meant(error) from None
        finally:
            call.cancel()


@dataclass(frozen=True)
class Http:
    client: httpx.AsyncClient
    token: str
    name: str = "http"

    async def ask(
        self, rpc: str, *requests: Message, timeout: float = PATIENCE, **headers: str
    ) -> Refusal:
        method, path, query, content = http_of(rpc, requests)
        return await self.request(
            method, path, timeout=timeout, params=query, content=content, **headers
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        timeout: float = PATIENCE,
        params: Sequence[tuple[str, str]] = (),
        content: bytes | AsyncIterator[bytes] | None = None,
        **headers: str,
    ) -> Refusal:
        shown = {"authorization": f"Bearer {self.token}", **headers}
        answer = await self.client.request(
            method,
            path,
            params=list(params),
            content=content,
            headers={key.replace("_", "-"): value for key, value in shown.items() if value},
            timeout=timeout,
        )
        said, code = _said(answer)
        return Refusal(
            status=json_format.ParseDict(said, status_pb2.Status()),
            http=code,
            headers=answer.headers,
        )


def _said(answer: httpx.Response) -> tuple[Any, int | None]:
    if answer.is_success:
        last = json.loads(answer.text.strip().rpartition("\n")[2] or "{}")
        assert "error" in last, f"{answer.request.url} was not refused: {answer.text[:300]}"
        return last["error"], None
    return answer.json(), answer.status_code


def _of_grpc(error: grpc.aio.AioRpcError) -> Refusal:
    trailing = dict(error.trailing_metadata() or ())
    packed = trailing.pop(_BINARY, b"")
    status = status_pb2.Status.FromString(packed if isinstance(packed, bytes) else b"")
    if packed:
        assert (status.code, status.message) == (error.code().value[0], error.details())
    else:
        status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
    return Refusal(status=status, error=error, headers={k: str(v) for k, v in trailing.items()})


@cache
def _methods(file: FileDescriptor) -> dict[str, MethodDescriptor]:
    services = file.services_by_name.values()
    return {method.name: method for service in services for method in service.methods}


def method_of(rpc: str, file: FileDescriptor = pb.DESCRIPTOR) -> MethodDescriptor:
    """One of the gateway, or of another file, by its name."""
    return _methods(file)[rpc]


def over_http(rpc: str) -> bool:
    """Whether HTTP has it, as a call that a plain client can make."""
    return bool(method_of(rpc).GetOptions().Extensions[annotations_pb2.http].WhichOneof("pattern"))


def http_of(
    rpc: str, requests: Sequence[Any]
) -> tuple[str, str, list[tuple[str, str]], bytes | None]:
    """Method, path, query and body of the same call over HTTP, by the option in the proto."""
    rule = method_of(rpc).GetOptions().Extensions[annotations_pb2.http]
    request: Any
    request, *rest = requests
    if request.DESCRIPTOR.fields_by_name.get("credentials") and request.HasField("credentials"):
        rule = next((each for each in rule.additional_bindings if each.body == "*"), rule)
    verb = rule.WhichOneof("pattern")
    fields = json_format.MessageToDict(request, preserving_proto_field_name=True)
    path = VARIABLE.sub(lambda found: _taken(fields, found["field"]), getattr(rule, verb))
    if (verb.upper(), rule.body) == _RAW:
        content = b"".join(each.data for each in rest)
        header = fields.pop("header", fields)
        return "PUT", path, list(_flat(header)), content
    body: Any = None
    if rule.body == "*":
        body, fields = fields, {}
    elif rule.body:
        body = fields.pop(rule.body, {})
    return (
        verb.upper(),
        path,
        list(_flat(fields)),
        None if body is None else json.dumps(body).encode(),
    )


def _taken(fields: Any, dotted: str) -> str:
    """The value of a field that goes into the path, and nowhere else then."""
    *outer, last = dotted.split(".")
    for name in outer:
        fields = fields[name]
    return urllib.parse.quote(str(fields.pop(last, "")), safe="/")


def _flat(fields: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            for each in value if isinstance(value, list) else [value]:
                text = json.dumps(each) if isinstance(each, bool) else str(each)
                yield f"{before}{name}", text


def _packed(message: Message) -> bytes:
    return message.SerializeToString()
