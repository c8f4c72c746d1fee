"""The whole suite of one machine, with TLS at the gateway."""

import ssl
from pathlib import Path

import httpx
import pytest

from cove.client import Client
from tests.support.certificates import Authority
from tests.support.suite import running_suite


@pytest.mark.long
async def test_clients_find_it_and_speak_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "pki")
    own = authority.certify(hosts=("127.0.0.1", "localhost"))
    monkeypatch.setenv("COVE_CA_FILE", str(authority.path))
    context = ssl.create_default_context(cafile=str(authority.path))
    env = {
        "COVE_GATEWAY__CERTIFICATE_FILE": str(own.certificate),
        "COVE_GATEWAY__KEY_FILE": str(own.key),
    }
    async with running_suite(tmp_path, env=env) as suite:
        assert suite.grpc.startswith("https://127.0.0.1:")
        async with Client(state=suite.state) as cove:  # As `cove up` left word.
            assert {*(await cove.health()).values()} == {"SERVING"}
            assert [each async for each in cove.workspaces.list()] == []
        async with httpx.AsyncClient(verify=context, timeout=30) as client:
            assert (await client.get(f"{suite.http}/readyz")).json() == {"status": "SERVING"}
