"""Who calls through a proxy: what it says of a caller counts, what others say does not."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx
import pytest
import pytest_asyncio

from servicekit.config import ConfigError
from servicekit.identity import Caller
from servicekit.proxies import Proxies
from servicekit.server import Served
from tests.gateway.pki import BOT, READER, TOKEN, Pki, serving
from tests.gateway.test_tls import calling
from tests.servicekit.failing import failure
from tests.support.certificates import Paths

EDGE: Final = "spiffe://acme.test/ci/edge"
"""One that the rules would let in by itself, were it no proxy."""
SAYS_BOT: Final = ("x-forwarded-client-cert", f"By=spiffe://cove/edge;Hash=ab;URI={BOT}")
RATE: Final = 1
BURST: Final = 10 * RATE


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def shown(pki: Pki) -> Paths:
    return pki.callers.certify(EDGE)


@pytest_asyncio.fixture(loop_scope="session")
async def served(tmp_path: Path, pki: Pki) -> AsyncIterator[Served]:
    config = pki.config(tmp_path, proxies=(EDGE,), stranger_rate=RATE)
    async with serving(tmp_path, config) as served:
        yield served


async def test_the_callers_certificate_counts_and_never_the_proxys(
    served: Served, pki: Pki, shown: Paths
) -> None:
    mtls = served.addresses[1]
    async with calling(mtls, pki.credentials(shown), SAYS_BOT) as bot:
        assert await bot.list() == []
    for said in ((), (("x-forwarded-client-cert", "Hash=ab;URI=spiffe://other.test/x"),)):
        async with calling(mtls, pki.credentials(shown), *said) as nobody:
            assert (await nobody.failure()).reason == "UNAUTHENTICATED"
    token = ("authorization", f"Bearer {TOKEN}")
    async with calling(mtls, pki.credentials(shown), token) as admin:
        assert await admin.list() == []


@pytest.mark.parametrize("origin", ["https://evil.test", "null", "file://", ""])
async def test_a_page_is_let_in_by_a_token_alone(
    served: Served, pki: Pki, shown: Paths, origin: str
) -> None:
    """Whose browser has shown a certificate by itself. A form needs nobody's leave to be sent."""
    page = ("origin", origin)
    async with calling(served.addresses[1], pki.credentials(shown), SAYS_BOT, page) as caller:
        assert (await caller.failure()).reason == "UNAUTHENTICATED"
    context = pki.context(shown)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        url, headers = f"https://{served.http}/workspaces", dict([SAYS_BOT])
        assert (await client.get(url, headers=headers)).status_code == 200
        answer = await client.get(url, headers=headers | dict([page]))
        assert answer.status_code == 401


async def test_nobody_else_says_who_calls(served: Served, pki: Pki) -> None:
    async with calling(served.addresses[0], pki.credentials(), SAYS_BOT) as forger:
        assert (await forger.failure()).reason == "UNAUTHENTICATED"
    async with calling(served.addresses[1], pki.credentials(pki.reader), SAYS_BOT) as reader:
        failed = await failure(reader.limit())  # The bot may do this.
        assert failed.reason == "PERMISSION_DENIED"
    context = pki.context(pki.reader)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        url = f"https://{served.http}/quota?updateMask=limits.workspaces"
        answer = await client.patch(url, json={}, headers=dict([SAYS_BOT]))
        assert answer.status_code == 403


@pytest.mark.parametrize("way", ["grpc", "http"])
async def test_strangers_are_limited_by_where_the_proxy_saw_them(
    served: Served, pki: Pki, shown: Paths, way: str
) -> None:
    """Whatever a caller put before that."""

    async def reason(forwarded: str, number: int) -> str:
        bad = ("authorization", f"Bearer wrong-{forwarded}-{number}")
        said = (bad, ("x-forwarded-for", forwarded))
        if way == "grpc":
            async with calling(served.addresses[1], pki.credentials(shown), *said) as caller:
                return (await caller.failure()).reason
        async with httpx.AsyncClient(verify=pki.context(shown), trust_env=False) as client:
            answer = await client.get(f"https://{served.http}/workspaces", headers=dict(said))
            return str(answer.json()["details"][0]["reason"]).removeprefix("ERROR_REASON_")

    limited = "AUTHENTICATION_LIMIT"
    found = [await reason(f"198.51.100.{n}, 192.0.2.1", n) for n in range(3 * BURST)]
    assert found[0] == "UNAUTHENTICATED"
    assert limited in found
    assert await reason("192.0.2.1, 192.0.2.2", 0) == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (f"URI={BOT}", (BOT,)),
        (f'Hash=1;Subject="";URI={BOT}', ()),  # Nothing that has to be quoted.
        (f"URI={READER};URI={BOT}", (READER, BOT)),  # Which is nobody's.
        (f"URI={READER},URI={BOT}", ()),  # Of two hops.
        (f"By={BOT};Hash=1", ()),
        ("", ()),
    ],
)
def test_what_is_read_of_a_certificate(said: str, seen: tuple[str, ...]) -> None:
    metadata = {"x-forwarded-client-cert": said, "x-forwarded-for": "2001:db8::7"}
    caller = Proxies((EDGE,)).behind(Caller(metadata, "ipv4:10.0.0.1:5", (EDGE,)))
    assert caller.certificate == seen
    assert caller.source == "ipv6:[2001:db8::7]:0"


@pytest.mark.parametrize("said", ["", "unknown", "192.0.2.1, ", "192.0.2.1:80", "unix:/run/cove"])
def test_without_an_address_it_is_the_proxys(said: str) -> None:
    metadata = {"x-forwarded-for": said, "cove-source": "ipv4:192.0.2.9:1"}
    caller = Proxies((EDGE,)).behind(Caller(metadata, "ipv4:10.0.0.1:5", (EDGE,)))
    assert caller.source == "ipv4:10.0.0.1:5"


def test_proxies_need_an_authority(tmp_path: Path, pki: Pki) -> None:
    with pytest.raises(ConfigError, match="CLIENT_CA_FILE: required with PROXIES"):
        pki.config(tmp_path, proxies=(EDGE,), client_ca_file=None, certificates_file=None, mtls="")
