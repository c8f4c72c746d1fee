"""A client and a gateway over TLS, and what is said when they do not come together."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cove import client, endpoint, health, secure, status
from servicekit.server import Served
from tests.gateway.pki import TOKEN, Pki, serving
from tests.support.certificates import Paths


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def served(tmp_path: Path, pki: Pki) -> AsyncIterator[Served]:
    async with serving(tmp_path, pki.config(tmp_path)) as served:
        yield served


def shown(paths: Paths) -> dict[str, str]:
    return {"COVE_CERTIFICATE_FILE": str(paths.certificate), "COVE_KEY_FILE": str(paths.key)}


async def listing(monkeypatch: pytest.MonkeyPatch, address: str, **env: str) -> int:
    """How many workspaces a client finds."""
    for name in ("COVE_CA_FILE", "COVE_CERTIFICATE_FILE", "COVE_KEY_FILE", "COVE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    async with client.Client(address, patience=0) as cove:
        return len([each async for each in cove.workspaces.list()])


async def test_by_token_and_by_certificate(
    served: Served, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = {"COVE_CA_FILE": str(pki.public.path)}
    by_token, by_certificate, _ = (f"https://{each}" for each in served.addresses)
    assert await listing(monkeypatch, by_token, **ca, COVE_TOKEN=TOKEN) == 0
    assert await listing(monkeypatch, by_certificate, **ca, **shown(pki.bot)) == 0
    found = endpoint.find(ca, address=by_token)
    async with asyncio.timeout(30):  # There is no node here: not all of it gets ready.
        while (await health.check(found))["cove.gateway.v1.AccessService"] != health.SERVING:
            pass


async def test_a_handshake_that_fails_says_why(
    served: Served, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = {"COVE_CA_FILE": str(pki.public.path)}
    other = {"COVE_CA_FILE": str(pki.inner.path)}
    by_token, by_certificate, _ = served.addresses
    for address, env, message, remedy in (
        (f"https://{by_token}", {}, "no authority that is trusted", "COVE_CA_FILE"),
        (f"https://{by_token}", other, "no authority that is trusted", "COVE_CA_FILE"),
        (f"https://{by_certificate}", ca, "closes the connection", "COVE_CERTIFICATE_FILE"),
        (by_token, {}, "closes the connection", "https://"),
    ):
        with pytest.raises(status.Unavailable, match=message) as failed:
            await listing(monkeypatch, address, **env)
        assert remedy in failed.value.remedy


async def test_a_certificate_for_another_host(
    tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = pki.public.certify(hosts=("cove.example",))
    config = pki.config(tmp_path, certificate_file=elsewhere.certificate, key_file=elsewhere.key)
    async with serving(tmp_path, config) as served:
        with pytest.raises(status.Unavailable, match="for another name"):
            await listing(
                monkeypatch,
                f"https://{served.addresses[0]}",
                COVE_CA_FILE=str(pki.public.path),
            )


async def test_a_gateway_without_tls(
    tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("certificate_file", "key_file", "client_ca_file", "certificates_file")
    config = pki.config(tmp_path, mtls="", **dict.fromkeys(names))
    async with serving(tmp_path, config) as served:
        with pytest.raises(status.Unavailable, match="does not speak TLS"):
            await listing(monkeypatch, f"https://{served.addresses[0]}")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"COVE_CA_FILE": "/nowhere"}, "COVE_CA_FILE"),
        ({"COVE_CA_FILE": "/etc/hostname"}, "COVE_CA_FILE"),
        ({"COVE_CERTIFICATE_FILE": "/etc/hostname"}, "belong together"),
        ({"COVE_KEY_FILE": "/etc/hostname"}, "belong together"),
    ],
)
def test_files_that_cannot_be_used(env: dict[str, str], said: str) -> None:
    with pytest.raises(status.InvalidArgument, match=said):
        endpoint.find(env, address="https://cove.example")


def test_a_token_does_not_go_in_the_clear_where_tls_was_meant(pki: Pki) -> None:
    env = {"COVE_CA_FILE": str(pki.public.path), "COVE_ADDRESS": "cove.example:7420"}
    with pytest.raises(status.InvalidArgument, match="without TLS") as failed:
        endpoint.find(env)
    assert "https://cove.example:7420" in failed.value.remedy
    assert endpoint.find(env, address="unix:/run/cove/gateway").tls is None


@pytest.mark.parametrize(
    ("address", "dialled"),
    [
        ("https://cove.example", "cove.example:443"),
        ("https://cove.example:7420/", "cove.example:7420"),
        ("https://[::1]:7420", "[::1]:7420"),
        ("http://cove.example:7420", "cove.example:7420"),
        ("cove.example:7420", "cove.example:7420"),
        ("unix:/run/cove/gateway", "unix:/run/cove/gateway"),
    ],
)
def test_what_is_dialled(address: str, dialled: str) -> None:
    assert secure.target(address) == dialled


async def test_the_command_line(served: Served, pki: Pki) -> None:
    env = os.environ | shown(pki.bot) | {"COVE_CA_FILE": str(pki.public.path)}
    arguments = sys.executable, "-m", "cove", "ls"

    def run(address: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            arguments,
            env=env | {"COVE_ADDRESS": address},
            capture_output=True,
            text=True,
            timeout=60,
        )

    done = await asyncio.to_thread(run, f"https://{served.addresses[1]}")
    assert done.returncode == 0, done.stderr
    refused = await asyncio.to_thread(run, served.addresses[1])
    assert refused.returncode == 1
    assert "without TLS" in refused.stderr
