"""TLS between the services: who is believed, and what a renewal changes."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest

from servicekit.channel import Peer, connected
from servicekit.config import ConfigError
from servicekit.secured import Secure, secured
from servicekit.sockets import AddressError
from servicekit.tls import Certificates, Files
from tests.servicekit.failing import failure
from tests.servicekit.kit import Kit, Protos, running
from tests.support.certificates import Authority, Paths
from tests.support.processes import no_descriptors

GATEWAY, OTHER = "spiffe://cove.test/gateway", "spiffe://cove.test/other"
TOOL = "spiffe://cove.test/tool"


class Pki:
    """An authority, and the certificates of a tool and of its gateway."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.tool = self.authority.certify(TOOL)
        self.gateway = self.authority.certify(GATEWAY)
        self.trusted = folder / "trusted.pem"  # By the tool, and by its gateway.
        shutil.copy(self.authority.path, self.trusted)

    def config(self, **changes: Any) -> dict[str, Any]:
        return {
            "address": ("127.0.0.1:0",),
            "certificate_file": self.tool.certificate,
            "key_file": self.tool.key,
            "client_ca_file": self.trusted,
            "peers": (GATEWAY,),
        } | changes

    def secure(self, shown: Paths | None = None, identity: str = TOOL) -> Secure:
        shown = shown or self.gateway
        files = Files(certificate=shown.certificate, key=shown.key, authorities=self.trusted)
        return Secure(
            certificates=Certificates(files), identity=identity, folder=self.folder / "way"
        )


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def to(kit: Kit, secure: Secure, **more: Any) -> AbstractAsyncContextManager[Peer]:
    return connected(kit.served.address, service="kit", secure=secure, **more)


async def say(kit: Kit, peer: Peer, text: str = "a") -> str:
    stub = kit_stub(kit, peer.channel)
    return str((await peer.unary(stub.Say, kit.pb.SayRequest(text=text), timeout=30)).text)


def kit_stub(kit: Kit, channel: grpc.aio.Channel) -> Any:
    return type(kit.stub)(channel)


async def _sent(requests: list[Any]) -> AsyncIterator[Any]:
    for each in requests:
        yield each


async def refused(kit: Kit, secure: Secure) -> None:
    """Nobody answers who comes like this."""
    async with (
        secured(kit.served.address, "kit", secure) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        said = kit_stub(kit, channel).Say(kit.pb.SayRequest(), timeout=30)
        assert (await failure(said)).code is grpc.StatusCode.UNAVAILABLE


def begun(address: str, context: ssl.SSLContext, session: Any = None) -> Any:
    """The session of a connection of TLS that the server has let in; None of another."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as plain:
        try:
            with context.wrap_socket(plain, session=session) as secured:
                return secured.session if secured.recv(1) else None
        except (ssl.SSLError, ConnectionError):
            return None


async def test_a_tool_lets_its_gateway_in(protos: Protos, tmp_path: Path, pki: Pki) -> None:
    async with running(protos, tmp_path, **pki.config()) as kit, to(kit, pki.secure()) as peer:
        assert await say(kit, peer) == "a"
        large = [kit.pb.SayRequest(text="x" * 100_000)] * 40  # Many pieces, both ways.
        echo = kit_stub(kit, peer.channel).Echo
        async with peer.exchange(echo, _sent(large)) as answers:
            assert [len(each.text) async for each in answers] == [100_000] * 40


async def test_nobody_else_of_the_same_authority(protos: Protos, tmp_path: Path, pki: Pki) -> None:
    strangers = (
        pki.authority.certify(OTHER),
        pki.authority.certify(),
        pki.authority.certify(f"{GATEWAY}/x"),
        pki.authority.certify(GATEWAY, OTHER),  # SPIFFE: one name each.
        pki.authority.certify(hosts=("spiffe.cove.test",)),
    )
    async with running(protos, tmp_path, **pki.config()) as kit:
        for shown in strangers:
            async with to(kit, pki.secure(shown)) as peer:
                failed = await failure(say(kit, peer))
                assert failed.code is grpc.StatusCode.UNAUTHENTICATED


async def test_nor_without_a_valid_certificate(protos: Protos, tmp_path: Path, pki: Pki) -> None:
    foreign = Authority(tmp_path / "foreign").certify(GATEWAY)
    expired = pki.authority.certify(GATEWAY, expired=True)
    async with running(protos, tmp_path, **pki.config()) as kit:
        for shown in (foreign, expired):
            await refused(kit, pki.secure(shown))
        roots = pki.trusted.read_bytes()
        nameless = grpc.ssl_channel_credentials(roots)
        for opened in (
            grpc.aio.secure_channel(kit.served.address, nameless),
            grpc.aio.insecure_channel(kit.served.address),
        ):
            async with opened as channel:
                said = kit_stub(kit, channel).Say(kit.pb.SayRequest(), timeout=30)
                assert (await failure(said)).code is grpc.StatusCode.UNAVAILABLE


async def test_where_there_is_a_token_too_both_are_wanted(
    protos: Protos, tmp_path: Path, pki: Pki
) -> None:
    token = tmp_path / "token"
    token.write_text("right")
    token.chmod(0o600)
    config = pki.config(service_token_file=token)
    async with running(protos, tmp_path, **config) as kit:
        async with to(kit, pki.secure(), token="right") as peer:
            assert await say(kit, peer) == "a"
        async with to(kit, pki.secure()) as peer:
            assert (await failure(say(kit, peer))).code is grpc.StatusCode.UNAUTHENTICATED
        other = pki.secure(pki.authority.certify(OTHER))
        async with to(kit, other, token="right") as peer:
            assert (await failure(say(kit, peer))).code is grpc.StatusCode.UNAUTHENTICATED


async def test_the_gateway_speaks_to_nobody_but_the_tool(
    protos: Protos, tmp_path: Path, pki: Pki
) -> None:
    reached: list[Any] = []

    async def said(request: Any) -> str:
        reached.append(request)
        return "a"

    impostors = (pki.authority.certify(OTHER), Authority(tmp_path / "foreign").certify(TOOL))
    for shown in impostors:
        config = pki.config(certificate_file=shown.certificate, key_file=shown.key)
        async with running(protos, tmp_path, say=said, **config) as kit:
            await refused(kit, pki.secure())
    assert not reached


async def test_without_an_id_the_name_of_the_host_counts(
    protos: Protos, tmp_path: Path, pki: Pki
) -> None:
    named = pki.authority.certify(hosts=("127.0.0.1",))
    config = pki.config(certificate_file=named.certificate, key_file=named.key)
    async with (
        running(protos, tmp_path, **config) as kit,
        to(kit, pki.secure(identity="")) as peer,
    ):
        assert await say(kit, peer) == "a"
    async with running(protos, tmp_path, **pki.config()) as kit:
        await refused(kit, pki.secure(identity=""))


async def test_a_renewed_certificate_is_shown_at_the_next_connection(
    protos: Protos, tmp_path: Path, pki: Pki
) -> None:
    async with running(protos, tmp_path, **pki.config()) as kit, to(kit, pki.secure()) as peer:
        assert await say(kit, peer) == "a"
        pki.tool.replace(pki.authority.certify(OTHER))
        assert await say(kit, peer) == "a"  # A connection that stands goes on.
        async with to(kit, pki.secure(identity=OTHER)) as later:
            assert await say(kit, later) == "a"
        await refused(kit, pki.secure())


async def test_an_authority_that_was_replaced_lets_nobody_in_any_more(
    protos: Protos, tmp_path: Path, pki: Pki
) -> None:
    """The gateway's own channel, too, has what is in its files at its next connection."""
    secure = pki.secure()
    later = Authority(tmp_path / "later")
    async with running(protos, tmp_path, **pki.config()) as kit:
        async with to(kit, secure) as peer:
            assert await say(kit, peer) == "a"
        shutil.copy(later.path, pki.trusted)
        pki.tool.replace(later.certify(TOOL))
        await refused(kit, secure)  # Its certificate is still of the old one.
        pki.gateway.replace(later.certify(GATEWAY))
        async with to(kit, secure) as peer:
            assert await say(kit, peer) == "a"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_of_an_authority_that_was_replaced_is_resumed(
    protos: Protos, tmp_path: Path, pki: Pki, version: ssl.TLSVersion
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = version
    context.check_hostname = False
    context.load_verify_locations(pki.trusted)
    context.load_cert_chain(pki.gateway.certificate, pki.gateway.key)
    context.set_alpn_protocols(["h2"])
    async with running(protos, tmp_path, **pki.config()) as kit:

        async def session(before: Any = None) -> Any:
            return await asyncio.to_thread(begun, kit.served.address, context, before)

        first = await session()
        assert first is not None
        assert await session(first) is not None
        shutil.copy(Authority(tmp_path / "later").path, pki.trusted)
        assert await session(first) is None
        assert await session() is None


async def test_a_renewal_halfway_through_leaves_what_was_there(
    protos: Protos, tmp_path: Path, pki: Pki
) -> None:
    async with running(protos, tmp_path, **pki.config()) as kit:
        made = pki.authority.certify(OTHER)
        shutil.copy(made.certificate, pki.tool.certificate)  # And the key of before.
        async with to(kit, pki.secure()) as peer:
            assert await say(kit, peer) == "a"
        pki.tool.key.unlink()
        async with to(kit, pki.secure()) as peer:
            assert await say(kit, peer) == "a"
        shutil.copy(made.key, pki.tool.key)
        async with to(kit, pki.secure(identity=OTHER)) as peer:
            assert await say(kit, peer) == "a"


def test_a_renewal_that_could_not_be_opened_just_then_is_opened_later(pki: Pki) -> None:
    certificates = pki.secure().certificates
    before = certificates.current()
    pki.gateway.replace(pki.authority.certify(OTHER))
    with no_descriptors():
        assert certificates.current() is before
    assert certificates.current() != before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key_file": None}, "COVE_KIT__KEY_FILE: required"),
        ({"certificate_file": None}, "COVE_KIT__CERTIFICATE_FILE: required"),
        ({"certificate_file": None, "key_file": None}, "COVE_KIT__CERTIFICATE_FILE: required"),
        ({"peers": ()}, "COVE_KIT__PEERS: required"),
        ({"client_ca_file": None}, "COVE_KIT__CLIENT_CA_FILE: required"),
        ({"key_file": Path("/nowhere")}, "/nowhere: cannot be read"),
        ({"client_ca_file": Path("/dev/null")}, "/dev/null: empty"),
    ],
)
async def test_what_does_not_fit_is_told_at_the_start(
    protos: Protos, tmp_path: Path, pki: Pki, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        async with running(protos, tmp_path, **pki.config(**changes)):
            pass


@pytest.mark.parametrize("wrong", ["another's", "open to everyone", "no key"])
async def test_a_key_that_cannot_be_used_is_told_at_the_start(
    protos: Protos, tmp_path: Path, pki: Pki, wrong: str
) -> None:
    if wrong == "another's":
        shutil.copy(pki.gateway.key, pki.tool.key)
    elif wrong == "open to everyone":
        pki.tool.key.chmod(0o604)
    else:
        pki.tool.key.write_text("x")
    with pytest.raises(ConfigError, match=str(pki.tool.key)):
        async with running(protos, tmp_path, **pki.config()):
            pass


async def test_nothing_of_the_way_is_left(protos: Protos, tmp_path: Path, pki: Pki) -> None:
    before = asyncio.all_tasks()
    async with running(protos, tmp_path, **pki.config()) as kit:
        async with to(kit, pki.secure()) as peer:
            await say(kit, peer)
        await refused(kit, pki.secure(identity=OTHER))
    assert not [*(pki.folder / "way").iterdir()]
    assert asyncio.all_tasks() <= before


async def test_what_a_service_says_last_arrives(pki: Pki) -> None:
    """Also where gRPC has not taken yet what came before."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.tool.certificate, pki.tool.key)
    sizes = iter(range(150_000, 400_000, 10_000))  # Some are more than a socket holds, by a little.

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = next(sizes)
        writer.write(size.to_bytes(4) + bytes(size))
        await writer.drain()
        writer.close()

    async def heard(target: str) -> tuple[int, int]:
        with socket.socket(socket.AF_UNIX) as plain:
            plain.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(plain, target.removeprefix("unix:"))
            await asyncio.sleep(0.5)  # So long it is busy with something else.
            data = bytearray()
            while piece := await loop.sock_recv(plain, 1 << 16):
                data += piece
        return int.from_bytes(data[:4]), len(data) - 4

    server = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=context)
    host, port = server.sockets[0].getsockname()
    async with server, secured(f"{host}:{port}", "kit", pki.secure()) as target:
        async with asyncio.timeout(30):
            told = await asyncio.gather(*(heard(target) for _ in range(25)))
    assert [(said, said) for said, _ in told] == told


async def test_the_sockets_of_who_was_killed_are_removed(pki: Pki) -> None:
    secure = pki.secure()
    async with secured("127.0.0.1:1", "kit", secure) as used:
        left = secure.folder / "tls-killed"
        left.mkdir()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(f"{left}/s")
        async with secured("127.0.0.1:1", "kit", secure) as another:
            there = {f"unix:{each}/s" for each in secure.folder.iterdir()}
            assert there == {used, another}


async def test_a_folder_whose_name_is_too_long_is_told(pki: Pki) -> None:
    pki.folder = pki.folder / ("x" * 100)
    with pytest.raises(AddressError, match="cannot listen: AF_UNIX path too long"):
        async with secured("127.0.0.1:1", "kit", pki.secure()):
            pass
    assert list((pki.folder / "way").iterdir()) == []
