"""What the Python program to copy repeats, and what not; the others go by the same rules."""

import importlib.util
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from cove.executor.v1.executor_pb2 import Chunk, Execution, Exit, Heartbeat
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as rpc
from tests.interop.languages import ROOT

Act = Callable[[Any], Any]

_NAME: Final = "workspaces/a/executions/b"


class Gateway(grpc.GenericRpcHandler):
    """Does one act for each call: what a proxy on the way does, or a gateway that is busy."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.asked: list[Any] = []

    def service(self, details: Any) -> Any:
        if details.method.endswith("/StartExecution"):
            return grpc.unary_unary_rpc_method_handler(
                self._act,
                pb.StartExecutionRequest.FromString,
                pb.StartExecutionResponse.SerializeToString,
            )
        return grpc.unary_stream_rpc_method_handler(
            self._acts, pb.ReadOutputRequest.FromString, pb.ReadOutputResponse.SerializeToString
        )

    def _act(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return self.acts.pop(0)(context)

    def _acts(self, request: Any, context: Any) -> Any:
        yield from self._act(request, context)


def fails(code: grpc.StatusCode, reason: str = "", retry_after: float = 0, took: float = 0) -> Act:
    """Without a reason as a proxy does, with one as Cove does."""

    def act(context: Any) -> Any:
        time.sleep(took)
        status = Status(code=code_pb2.Code.Value(code.name), message="no")
        if reason:
            status.details.add().Pack(ErrorInfo(reason=f"ERROR_REASON_{reason}", domain="cove"))
        if retry_after:
            retry = RetryInfo()
            retry.retry_delay.FromMilliseconds(int(retry_after * 1000))
            status.details.add().Pack(retry)
        context.abort_with_status(rpc_status.to_status(status))

    return act


def starts(context: Any) -> pb.StartExecutionResponse:
    return pb.StartExecutionResponse(execution=Execution(name=_NAME))


def says(*events: Any) -> Act:
    """Events of one stream, which then ends."""
    kinds = {Chunk: "chunk", Exit: "exit", Heartbeat: "heartbeat"}
    return lambda context: (pb.ReadOutputResponse(**{kinds[type(each)]: each}) for each in events)


@pytest.fixture(scope="module")
def calling() -> Any:
    """The file of the example; its stubs have the names of the SDK's."""
    spec = importlib.util.spec_from_file_location("calling", ROOT / "examples/python/calling.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def channel(gateway: Gateway, calling: Any) -> Iterator[Any]:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((gateway,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with calling.connect(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None).wait()


_PASSING: Final = {
    "a reset by a proxy": fails(grpc.StatusCode.INTERNAL),
    "a service that is away": fails(grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE"),
    "too many calls": fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
    "too much to do": fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
}


@pytest.mark.parametrize("failure", _PASSING)
def test_what_may_pass_is_asked_again(
    gateway: Gateway, channel: Any, calling: Any, failure: str
) -> None:
    gateway.acts = [_PASSING[failure], _PASSING[failure], starts]
    request = pb.StartExecutionRequest(parent="workspaces/a", request_id="1")
    answer = calling.again(rpc.ExecutionServiceStub(channel).StartExecution, request)
    assert answer.execution.name == _NAME
    assert gateway.asked == [request] * 3


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.NOT_FOUND, "WORKSPACE_NOT_FOUND"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ""),
    ],
)
def test_what_will_not_pass_is_told_at_once(
    gateway: Gateway, channel: Any, calling: Any, code: grpc.StatusCode, reason: str
) -> None:
    gateway.acts = [fails(code, reason)]
    with pytest.raises(grpc.RpcError) as told:
        calling.again(rpc.ExecutionServiceStub(channel).StartExecution, pb.StartExecutionRequest())
    assert told.value.code() is code
    assert len(gateway.asked) == 1


def test_as_long_as_cove_asks_for_is_waited(gateway: Gateway, channel: Any, calling: Any) -> None:
    gateway.acts = [fails(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_after=0.3), starts]
    start = time.monotonic()
    calling.again(rpc.ExecutionServiceStub(channel).StartExecution, pb.StartExecutionRequest())
    assert time.monotonic() - start >= 0.3


def test_patience_begins_with_the_first_failure(
    gateway: Gateway, channel: Any, calling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "PATIENCE", 0.2)
    gateway.acts = [fails(grpc.StatusCode.UNAVAILABLE, took=0.3), starts]
    calling.again(rpc.ExecutionServiceStub(channel).StartExecution, pb.StartExecutionRequest())
    assert len(gateway.asked) == 2


def test_output_goes_on_after_breaks_of_any_kind(
    gateway: Gateway, channel: Any, calling: Any
) -> None:
    gateway.acts = [
        says(Chunk(offset=0, data=b"ab")),
        fails(grpc.StatusCode.INTERNAL),
        says(Chunk(offset=2, data=b"c"), Exit(code=3)),
    ]
    written: list[bytes] = []
    ended, breaks = calling.follow(channel, _NAME, written.append)
    assert (b"".join(written), ended.code, breaks) == (b"abc", 3, 2)
    assert [request.from_offset for request in gateway.asked] == [0, 2, 2]


def test_what_the_caller_fails_with_ends_it(gateway: Gateway, channel: Any, calling: Any) -> None:
    gateway.acts = [says(Chunk(data=b"ab"), Exit(code=0)), fails(grpc.StatusCode.UNAVAILABLE)]

    def write(data: bytes) -> None:
        rpc.ExecutionServiceStub(channel).StartExecution(pb.StartExecutionRequest())

    with pytest.raises(grpc.RpcError) as told:
        calling.follow(channel, _NAME, write)
    assert told.value.code() is grpc.StatusCode.UNAVAILABLE
    assert [type(request) for request in gateway.asked] == [
        pb.ReadOutputRequest, pb.StartExecutionRequest,
    ]  # fmt: skip


def test_a_stream_that_says_nothing_is_given_up(
    gateway: Gateway, channel: Any, calling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "PATIENCE", 0.0)
    gateway.acts = [says(Heartbeat())]
    with pytest.raises(EOFError):
        calling.follow(channel, _NAME, lambda data: None)
