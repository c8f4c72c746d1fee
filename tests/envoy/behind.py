"""Gateways behind Envoy, and what all of them read."""

import asyncio
import contextlib
import signal
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Protocol

import grpc

from cove_server.ports import reserved
from scripts.envoy_descriptors import descriptor_set
from tests.support.certificates import Authority, Paths
from tests.support.issuer import Issuer
from tests.support.suite import Suite

BOT: Final = "spiffe://acme.test/ci/bot"
GATEWAY: Final = "spiffe://cove/gateway"
NODE: Final = "spiffe://cove/node"
_EDGE: Final = "spiffe://cove/edge"
_BOUND: Final = 30.0


class Files:
    """What Envoy and the gateways read: certificates, keys of an issuer, the descriptor set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public = Authority(folder / "tls", "public")
        self.callers = Authority(folder / "tls", "callers")
        self.inner = Authority(folder / "tls", "services")
        self.front = self.public.certify(hosts=("localhost", "127.0.0.1"))
        self.edge = self.inner.certify(_EDGE)
        self.gateway = self.inner.certify(GATEWAY, hosts=("localhost", "127.0.0.1"))
        self.bot = self.callers.certify(BOT)
        self.issuer = Issuer()
        self.rules = folder / "rules"
        self.rules.write_text("spiffe://acme.test/ci/* acme writer\n")
        self.jwks = folder / "jwks.json"
        self.jwks.write_bytes(self.issuer.jwks())
        self._give("front", self.front)
        self._give("edge", self.edge)
        self._give("node", self.inner.certify(NODE, hosts=("localhost", "127.0.0.1")))
        (folder / "cove.binpb").write_bytes(descriptor_set().SerializeToString())

    def _give(self, name: str, paths: Paths) -> None:
        """Under the name that the configuration has."""
        for path in (paths.certificate, paths.key):
            path.with_stem(name).write_bytes(path.read_bytes())

    def credentials(self, shown: Paths | None = None) -> grpc.ChannelCredentials:
        roots = self.public.path.read_bytes()
        if shown is None:
            return grpc.ssl_channel_credentials(roots)
        key, certificate = shown.key.read_bytes(), shown.certificate.read_bytes()
        return grpc.ssl_channel_credentials(roots, key, certificate)

    def settings(self) -> dict[str, str]:
        """Of a gateway that knows callers by certificates and JWTs, and the proxy."""
        return {
            "COVE_GATEWAY__CERTIFICATE_FILE": str(self.gateway.certificate),
            "COVE_GATEWAY__KEY_FILE": str(self.gateway.key),
            "COVE_GATEWAY__CLIENT_CA_FILE": str(self.inner.path),
            "COVE_GATEWAY__CERTIFICATES_FILE": str(self.rules),
            "COVE_GATEWAY__PROXIES": _EDGE,
            "COVE_GATEWAY__JWT_ISSUER": self.issuer.url,
            "COVE_GATEWAY__JWT_AUDIENCE": self.issuer.audience,
            "COVE_GATEWAY__JWT_KEYS_FILE": str(self.jwks),
            "COVE_GATEWAY__JWT_ROLE": "writer",
        }


class Place(Protocol):
    """Where a gateway is."""

    mtls: str
    http: str


class Gateway:
    """One more on the tools of a suite, as another machine would have one."""

    def __init__(
        self, suite: Suite, files: Files, folder: Path, places: tuple[str, str], **env: str
    ) -> None:
        self.mtls, self.http = places
        self._folder = folder
        self.unix = f"unix:{folder}/gateway"
        self._env = {
            **suite.env,
            **files.settings(),
            "COVE_STATE": str(suite.state),
            "COVE_RUNTIME": str(suite.runtime),
            "COVE_GATEWAY__MTLS": self.mtls,
            "COVE_GATEWAY__HTTP": self.http,
            "COVE_GATEWAY__ADDRESS": self.unix,
            **env,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    async def start(self) -> None:
        """Return when it listens."""
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "gateway"),
                env=self._env,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout
        async with asyncio.timeout(_BOUND):
            assert await self._process.stdout.readline(), self.log[-4000:]

    async def stop(self) -> None:
        """As an upgrade does."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_BOUND):
            assert await self._process.wait() == 0

    async def end(self) -> None:
        """Whatever became of it."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
                self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def gateways(
    suite: Suite, files: Files, number: int = 2, **env: str
) -> AsyncIterator[list[Gateway]]:
    """So many, started, on ports that stay theirs."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for _ in range(number):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cv-gw-")))
            places = [stack.enter_context(reserved("127.0.0.1:0")) for _ in range(2)]
            gateway = Gateway(suite, files, folder, (places[0], places[1]), **env)
            stack.push_async_callback(gateway.end)
            found.append(gateway)
        await asyncio.gather(*(each.start() for each in found))
        yield found


def tls_of(files: Files, shown: Paths | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.public.path))
    if shown:
        context.load_cert_chain(shown.certificate, shown.key)
    return context
