"""Envoy as the way from gateways to the tools of a node, and in front of the gateways as well."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from cove.executor.v1.executor_pb2 import Chunk
from tests.envoy.behind import Files, gateways
from tests.envoy.conftest import SCOPE, client_of
from tests.envoy.edge import Edge, edge, node
from tests.support.certificates import Paths
from tests.support.suite import Suite

SIZE: Final = 2 << 20

pytestmark = pytest.mark.long


@pytest_asyncio.fixture(scope="module", loop_scope=SCOPE)
async def meshed(suite: Suite, files: Files) -> AsyncIterator[tuple[Edge, str]]:
    """Callers, Envoy, a gateway, Envoy, the tools; and where the executor is."""
    async with (
        node(suite, files) as (settings, _),
        gateways(suite, files, 1, **settings) as behind,
        edge(files, behind) as front,
    ):
        yield front, settings["COVE_GATEWAY__EXECUTOR"]


async def test_all_of_it_goes_through_both(suite: Suite, meshed: tuple[Edge, str]) -> None:
    front, _ = meshed
    async with (
        client_of(suite, front) as client,
        await client.workspaces.create(id="meshed") as workspace,
    ):
        await workspace.files.write("numbers", bytes(SIZE))
        execution = await workspace.start("cat", "numbers")
        digest = hashlib.sha256()
        async for event in execution.output():
            if isinstance(event, Chunk):
                digest.update(event.data)
        assert digest.digest() == hashlib.sha256(bytes(SIZE)).digest()
        assert [each.path for each in (await workspace.status()).entries] == ["numbers"]
        await workspace.source.commit("Add numbers")


async def test_only_gateways_get_to_a_tool(files: Files, meshed: tuple[Edge, str]) -> None:
    """Whoever else shows no certificate, or one of another authority or of somebody else."""
    _, executor = meshed
    assert await _hears(executor, files, files.gateway)
    for shown in (None, files.bot, files.edge):
        assert not await _hears(executor, files, shown)


async def _hears(address: str, files: Files, shown: Paths | None) -> bool:
    """Whether the tool says anything: a server of HTTP/2 begins to speak."""
    context = ssl.create_default_context(cafile=str(files.inner.path))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    if shown:
        context.load_cert_chain(shown.certificate, shown.key)
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        async with asyncio.timeout(10):
            return bool(await reader.read(1))
    except ssl.SSLError:
        return False
    finally:
        writer.transport.abort()
