"""`cove health capabilities`."""

import argparse
import asyncio
from contextlib import suppress
from importlib.metadata import version as installed
from typing import Final

from cove.cli.console import Console, printable, span
from cove.client import Client
from cove.executor.v1.executor_pb2 import Capabilities as ExecutorCapabilities
from cove.health import SERVING
from cove.provider.v1.provider_pb2 import Capabilities
from cove.status import CoveError

_PATIENCE: Final = 2.0


async def health(cove: Client, _: argparse.Namespace, console: Console) -> int:
    found = await cove.health()
    if console.as_json:
        console.json({"services": dict(found)})
    else:
        console.table(("SERVICE", "HEALTH"), list(found.items()))
    if all(state == SERVING for state in found.values()):
        return 0
    if not console.as_json:
        console.note("remedy: `cove doctor` on the machine of the suite says more.")
    return 1


async def capabilities(cove: Client, _: argparse.Namespace, console: Console) -> int:
    answer = await cove.capabilities()
    if console.as_json:
        console.json(answer)
        return 0
    found = answer.provider
    limit = Capabilities.LimitMethod.Name
    networks = [Capabilities.Network.Name(each) for each in found.networks]
    facts = {
        "version": answer.version,
        "node": found.node,
        "drivers": ", ".join(found.drivers),
        "isolation": _word(Capabilities.Isolation.Name(found.isolation), "ISOLATION_"),
        "memory": _word(limit(found.memory), "LIMIT_METHOD_"),
        "processes": _word(limit(found.processes), "LIMIT_METHOD_"),
        "cpu": _word(limit(found.cpu), "LIMIT_METHOD_"),
        "disk": _word(Capabilities.Disk.Name(found.disk), "DISK_"),
        "open files": _word(limit(found.open_files), "LIMIT_METHOD_"),
        "output": _retention(answer.executor.retention) if answer.HasField("executor") else "",
        "network": ", ".join(_word(name, "NETWORK_") for name in networks),
        "idle after": f"{found.idle_timeout.seconds} s",
        "least idle": span(answer.life.min_idle_timeout),
        "undelete": span(answer.life.undelete_window),
        "remedy": found.remedy,
    }
    for name, value in facts.items():
        if value:
            console.line(f"{name + ':':<12}{value}")
    for node in answer.nodes:
        state = "" if node.answers else ", does not answer"
        console.line(f"node {printable(node.name or '?')}: {node.workspaces} workspaces{state}")
    for driver in answer.drivers:
        console.line(f"{driver.driver + ':':<12}{', '.join(driver.capabilities)}")
        if driver.remedy and driver.driver != found.driver:
            console.line(f"{'':<12}unavailable: {driver.remedy}")
    return 0


def _retention(kept: ExecutorCapabilities.Retention) -> str:
    """How much output is kept."""
    parts = [
        f"{kept.execution_bytes >> 20} MiB an execution"
        * bool(kept.execution_bytes and kept.holes),
        f"{kept.environment_bytes >> 20} MiB a workspace" * bool(kept.environment_bytes),
        f"{kept.age.seconds / 86400:g} days" * bool(kept.age.seconds),
    ]
    return ", ".join(filter(None, parts)) or "all"


async def version(cove: Client, _: argparse.Namespace, console: Console) -> int:
    """`cove version`."""
    versions = {"cove": installed("cove"), "gateway": ""}
    with suppress(CoveError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            versions["gateway"] = (await cove.capabilities()).version
    if console.as_json:
        console.json(versions)
        return 0
    for name, found in versions.items():
        console.line(f"{name + ':':<12}{found or f'no answer at {cove.address}'}")
    return 0


def _word(name: str, prefix: str) -> str:
    word = name.removeprefix(prefix).lower()
    return "not enforced" if word == "unspecified" else word
