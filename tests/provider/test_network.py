"""What an environment may reach, as provider keeps it in force."""

import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from agent import frames
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.provider.v1 import provider_pb2 as pb
from servicekit.status import reason, told
from tests.agent import node as nodes
from tests.agent.node import Box, new_uid
from tests.egress.world import HERE, LENT, Outside, Proxy, inside, outside
from tests.provider.conftest import Suite, serving


@pytest.fixture(scope="module")
def proxy(node: nodes.Node) -> Iterator[Proxy]:
    """Only here: provider does without, too."""
    proxy = Proxy(node)
    proxy.start()
    yield proxy
    proxy.kill()
    (node.runtime / "egress").unlink()


@pytest.fixture
async def server() -> AsyncIterator[Outside]:
    async with outside(echo=True) as server:
        yield server


def network(*rules: tuple[str, Sequence[int]]) -> pb.Network:
    return pb.Network(allow=[pb.Network.Rule(host=host, ports=ports) for host, ports in rules])


@dataclass
class Environment:
    """One that runs."""

    suite: Suite
    uid: str
    handle: bytes

    @property
    def box(self) -> Box:
        node = self.suite.node
        return Box(node, self.uid, node.folder, node.runtime / "a" / self.uid)

    async def activate(self, suite: Suite | None = None) -> None:
        request = pb.ActivateEnvironmentRequest(handle=self.handle)
        await (suite or self.suite).stub.ActivateEnvironment(request)

    async def update(
        self, revision: int, *rules: tuple[str, Sequence[int]], suite: Suite | None = None
    ) -> pb.UpdateNetworkResponse:
        request = pb.UpdateNetworkRequest(
            handle=self.handle, network=network(*rules), revision=revision
        )
        return await (suite or self.suite).stub.UpdateNetwork(request)

    async def status(self, port: int) -> str:
        """What the proxy says to a tunnel there; `-` when nothing listens."""
        got = await inside(
            self.box,
            f"asked = b'CONNECT 127.0.0.2:{port} HTTP/1.1\\r\\n\\r\\n'\n"
            "try: print(status(asked, half=True)[9:12])\n"
            "except ConnectionRefusedError: print('-')",
        )
        return got.strip()


async def made(suite: Suite, *rules: tuple[str, Sequence[int]]) -> Environment:
    uid = new_uid()
    request = pb.ProvisionEnvironmentRequest(
        uid=uid, spec=pb.Spec(network=network(*rules)), mount=suite.worktree(uid)
    )
    handle = (await suite.stub.ProvisionEnvironment(request)).handle
    environment = Environment(suite, uid, handle)
    await environment.activate()
    return environment


@pytest.fixture
async def lent(node: nodes.Node, proxy: Proxy) -> AsyncIterator[Suite]:
    async with proxy.client():
        pass
    async with serving(node, egress_networks=LENT) as suite:
        yield suite


async def test_without_a_proxy_a_list_is_refused(suite: Suite) -> None:
    found = (await suite.stub.GetCapabilities(pb.GetCapabilitiesRequest())).capabilities
    assert list(found.networks) == [pb.Capabilities.NETWORK_NONE]
    spec = pb.Spec(network=network(("example.org", [443])))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await suite.stub.ValidateSpec(pb.ValidateSpecRequest(spec=spec))
    assert reason(failure.value) == ErrorReason.ERROR_REASON_CAPABILITY_MISSING
    environment = await made(suite)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await environment.update(1, ("example.org", [443]))
    assert reason(failure.value) == ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE
    await environment.update(2)


async def test_a_list_is_in_force_from_the_start_and_changes_at_once(
    lent: Suite, server: Outside
) -> None:
    found = (await lent.stub.GetCapabilities(pb.GetCapabilitiesRequest())).capabilities
    assert pb.Capabilities.NETWORK_ALLOW_LIST in found.networks
    environment = await made(lent, (HERE, [server.port]))
    assert await environment.status(server.port) == "200"
    await environment.update(5, (HERE, [1]))
    assert await environment.status(server.port) == "403"
    assert (await environment.update(4, (HERE, [server.port]))).superseded
    assert await environment.status(server.port) == "403"
    assert not (await environment.update(5, (HERE, [1]))).superseded
    await environment.update(6)
    assert await environment.status(server.port) == "-"
    await environment.update(7, (HERE, [server.port]))
    assert await environment.status(server.port) == "200"


async def test_it_outlives_provider_the_proxy_and_its_own_sandbox(
    node: nodes.Node, proxy: Proxy, server: Outside
) -> None:
    async with serving(node, egress_networks=LENT) as suite:
        environment = await made(suite, (HERE, [1]))
        await environment.update(3, (HERE, [server.port]))
    assert await environment.status(server.port) == "200"  # While no provider is there, too.
    proxy.kill()
    async with serving(node, egress_networks=LENT) as suite:
        proxy.start()
        # It connects at once, and is served when provider has found the new proxy.
        assert await environment.status(server.port) == "200"
        proxy.kill()
        proxy.start()
        assert await environment.status(server.port) == "200"
        async with node.launcher() as launcher:
            await launcher.kill(environment.uid)
        await environment.activate(suite)
        assert await environment.status(server.port) == "200"
        await environment.update(4, suite=suite)
        async with node.launcher() as launcher:
            await launcher.kill(environment.uid)
        await environment.activate(suite)
        assert await environment.status(server.port) == "-"
        await suite.stub.ReleaseEnvironment(pb.ReleaseEnvironmentRequest(uid=environment.uid))


async def test_a_port_that_is_taken_lets_nothing_out(lent: Suite, server: Outside) -> None:
    environment = await made(lent)
    async with environment.box.agent() as agent:
        sinks = environment.box.sinks("squat")
        squat = (
            "import socket\nwith socket.create_server(('127.0.0.1', 3128)) as taken:\n"
            "    print('taken', flush=True); taken.accept()"
        )
        await agent.start("squat", nodes.command(*nodes.python(squat)), sinks)
        await nodes.until(lambda: nodes.output(sinks.log)[0])
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await environment.update(1, (HERE, [server.port]))
        assert reason(failure.value) == ErrorReason.ERROR_REASON_PROXY_PORT_TAKEN
        await environment.activate()  # That is no reason to run nothing.
        await agent.signal("squat", 9)
        await nodes.ended(sinks)
        nodes.close(sinks)
    await environment.update(1, (HERE, [server.port]))
    assert await environment.status(server.port) == "200"


RIGHT = ("*", "*.a", "a", "A.b.", "xn--a.b", "1.2.3.4", "[::1]", "a_b.c")
WRONG = (
    *("", "*.", "**", "a.*", "*a", "a..b", "1.2.3", "0x1.2.3.4", "1.2.3.04", "ä.b", "a b", "a/b"),
    *("a:1", "http://a", "::1", "%61.b", "a.1", "-a.b", "1.2.3.4.", "[::1%lo]", "a@b", "a\n"),
    *("[::1::]", "[:]", "[1.2.3]"),
)


async def test_a_host_has_one_form(lent: Suite) -> None:
    for host in RIGHT:
        await lent.stub.ValidateSpec(
            pb.ValidateSpecRequest(spec=pb.Spec(network=network((host, [1]))))
        )
    for host in WRONG:
        spec = pb.Spec(network=network(("example.org", [1]), (host, [1])))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await lent.stub.ValidateSpec(pb.ValidateSpecRequest(spec=spec))
        assert reason(failure.value) == ErrorReason.ERROR_REASON_INVALID_FIELD, host
        assert "spec.network.allow[1].host" in str(told(failure.value)), host


async def test_no_proxy_hears_of_what_is_not_a_listener_of_it(lent: Suite) -> None:
    """Nothing listens outside for a sandbox: its proxy is reached from within alone."""
    await made(lent, ("*", [443]))
    with socket.socket() as peer:
        assert peer.connect_ex(("127.0.0.1", 3128)) != 0


async def test_an_agent_of_before_is_told_of(lent: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers that it does not know the request; that is no failure of its sandbox."""
    environment = await made(lent)
    monkeypatch.setattr(frames, "LISTEN", 63)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await environment.update(1, ("example.org", [443]))
    assert reason(failure.value) == ErrorReason.ERROR_REASON_AGENT_TOO_OLD
    await environment.activate()
    await environment.update(2)


@pytest.mark.long
async def test_a_sandbox_that_holds_still_gets_its_change_when_it_goes_on(
    lent: Suite, server: Outside
) -> None:
    """Until then nothing gets out, and the change is known to be missing."""
    environment = await made(lent, (HERE, [server.port]))
    held = pb.SuspendEnvironmentRequest(handle=environment.handle, duration=Duration(seconds=60))
    await lent.stub.SuspendEnvironment(held)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await environment.update(1, (HERE, [1]))
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    request = pb.ResumeEnvironmentRequest(handle=environment.handle)
    await lent.stub.ResumeEnvironment(request)
    assert not (await environment.update(1, (HERE, [1]))).superseded
    assert await environment.status(server.port) == "403"
