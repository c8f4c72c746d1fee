"""Callers who show a JWT: what is believed, and what the gateway asks its issuer."""

import asyncio
import base64
import gc
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cove.options.v1.options_pb2 import Role
from gateway.app import gateway
from gateway.config import Config
from gateway.identity.jwt import Claims, JwtAuthenticator
from gateway.identity.keys import FetchedKeys, FileKeys, is_safe
from servicekit.config import ConfigError
from servicekit.errors import Unauthenticated, Unavailable
from servicekit.identity import Caller, Identity
from tests.gateway.pki import TOKEN, Pki, serving
from tests.gateway.test_tls import calling
from tests.servicekit.failing import failure
from tests.support import issuer as issuers
from tests.support.issuer import Issuer, rsa_key

RSA = rsa_key()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuers.serving() as issuer:
        yield issuer


class Clock:
    """Seconds, which the test lets pass."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def by_file(
    issuer: Issuer, folder: Path, *extra: dict[str, Any], **claims: Any
) -> JwtAuthenticator:
    path = folder / "keys.json"
    path.write_bytes(issuer.jwks(*extra))
    return JwtAuthenticator(_claims(issuer, **claims), FileKeys(path))


def _claims(issuer: Issuer, **changes: Any) -> Claims:
    return Claims(issuer=issuer.url, audience=issuer.audience, **changes)


async def shown(authenticator: JwtAuthenticator, token: str) -> Identity:
    caller = Caller({"authorization": f"Bearer {token}"}, "ipv4:127.0.0.1:1")
    assert authenticator.applies(caller)
    return await authenticator.authenticate(caller)


async def refused(authenticator: JwtAuthenticator, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await shown(authenticator, token)


@pytest.mark.parametrize(
    "key", [RSA, ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()]
)
async def test_a_token_that_the_issuer_has_signed(issuer: Issuer, tmp_path: Path, key: Any) -> None:
    issuer.add("k", key)
    authenticator = by_file(issuer, tmp_path)
    host = issuer.url.removeprefix("http://")
    for _ in range(2):  # As remembered, too.
        found = await shown(authenticator, issuer.token())
        assert found == Identity(f"jwt:{host}:ada", "default", Role.ROLE_READER)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": -60},
        {"exp": None},
        {"nbf": 300},
        {"aud": "other"},
        {"aud": None},
        {"iss": "https://other.test"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"exp": "never"},
        {"aud": [["cove"]]},
    ],
)
async def test_a_token_that_is_not_for_here_and_now(
    issuer: Issuer, tmp_path: Path, claims: dict[str, Any]
) -> None:
    now = int(time.time())
    claims = {
        name: now + value if name in ("exp", "nbf") and isinstance(value, int) else value
        for name, value in claims.items()
    }
    await refused(by_file(issuer, tmp_path), _signed(issuer, claims))


def _signed(issuer: Issuer, claims: dict[str, Any]) -> str:
    """With claims that the library would not sign, too."""
    good = issuer.token()
    header, _, _ = good.split(".")
    said = json.loads(_decoded(good.split(".")[1])) | claims
    said = {name: value for name, value in said.items() if value is not None}
    body = f"{header}.{_encoded(json.dumps(said).encode())}"
    key = issuer.key()
    algorithm = jwt.get_algorithm_by_name("ES256")
    return f"{body}.{_encoded(algorithm.sign(body.encode(), key))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def forged(issuer: Issuer) -> Iterator[str]:
    good = issuer.token()
    header, body, signature = good.split(".")
    key = issuer.key().public_key()
    public = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def headed(**changes: Any) -> str:
        return _encoded(
            json.dumps({"alg": "ES256", "typ": "JWT", "kid": "first"} | changes).encode()
        )

    yield f"{headed(alg='none')}.{body}."
    yield f"{headed(alg='None')}.{body}."
    for secret in (public, public.strip(), b""):  # The public key as a secret.
        signed = f"{headed(alg='HS256')}.{body}"
        yield f"{signed}.{_encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"
    yield f"{header}.{body}.{_encoded(bytes(64))}"
    yield f"{header}.{body}."
    yield f"{header}.{_encoded(_decoded(body).replace(b'ada', b'eve'))}.{signature}"
    yield issuer.token(key=ec.generate_private_key(ec.SECP256R1()))
    yield issuer.token(key=RSA, kid="first")
    yield issuer.token(key=RSA, kid="first", alg="PS256")
    yield issuer.token(key="s" * 32, kid="secret", alg="HS256")
    own = issuers.public(ec.generate_private_key(ec.SECP256R1()))
    yield f"{headed(jwk=own)}.{body}.{signature}"
    yield f"{headed(jku='http://127.0.0.1:1/')}.{body}.{signature}"
    yield f"{headed(kid=['first'])}.{body}.{signature}"
    yield f"{headed(kid='../first')}.{body}.{signature}"
    yield f"{headed(crit=['x'], x=1)}.{body}.{signature}"
    yield ".."
    yield "a.b.c"
    yield f"{_encoded(b'[' * 9000)}.{body}.{signature}"
    yield f"{header}.{'A' * 20_000}.{signature}"


async def test_what_is_forged(issuer: Issuer, tmp_path: Path) -> None:
    secret = {"kty": "oct", "kid": "secret", "k": _encoded(b"s" * 32)}
    authenticator = by_file(issuer, tmp_path, secret)
    for token in forged(issuer):
        await refused(authenticator, token)
    await shown(authenticator, issuer.token())


async def test_keys_that_are_not_for_this_are_left_out(issuer: Issuer, tmp_path: Path) -> None:
    weak, other, mine = rsa_key(1024), rsa_key(), rsa_key()
    private = json.loads(_private(mine))
    extra: tuple[dict[str, Any], ...] = (
        issuers.public(weak) | {"kid": "weak"},
        issuers.public(other) | {"kid": "other", "use": "enc"},
        private | {"kid": "private"},
        {"kty": "none", "kid": "x"},
        {},
    )
    authenticator = by_file(issuer, tmp_path, *extra)
    for key, kid in ((weak, "weak"), (other, "other"), (mine, "private")):
        await refused(authenticator, issuer.token(key=key, kid=kid))
    await shown(authenticator, issuer.token())


def _private(key: Any) -> str:
    return str(jwt.algorithms.RSAAlgorithm.to_jwk(key))


async def test_a_token_without_key_id_is_of_the_only_key(issuer: Issuer, tmp_path: Path) -> None:
    await shown(by_file(issuer, tmp_path), issuer.token(kid=None))
    issuer.add("second")
    await refused(by_file(issuer, tmp_path), issuer.token(kid=None))


@pytest.mark.parametrize(
    ("rules", "claims", "found"),
    [
        ({"tenant": "org"}, {"org": "acme"}, ("acme", Role.ROLE_READER)),
        ({"tenant": "https://x.test/org"}, {"https://x.test/org": "a"}, ("a", Role.ROLE_READER)),
        ({"fixed_role": "admin"}, {}, ("default", Role.ROLE_ADMIN)),
        ({"role": "role"}, {"role": "writer"}, ("default", Role.ROLE_WRITER)),
        ({"role": "a.b"}, {"a": {"b": ["reader", "writer"]}}, ("default", Role.ROLE_WRITER)),
        (
            {"role": "groups", "roles": {"devs": "writer", "ops": "admin"}},
            {"groups": ["x", "devs", "admin"]},
            ("default", Role.ROLE_WRITER),
        ),
        ({"tenant": "org"}, {}, None),
        ({"tenant": "org"}, {"org": ["acme"]}, None),
        ({"tenant": "org"}, {"org": "../acme"}, None),
        ({"tenant": "org"}, {"org": "ACME"}, None),
        ({"role": "role"}, {}, None),
        ({"role": "role"}, {"role": "root"}, None),
        ({"role": "role"}, {"role": "service"}, None),
        ({"role": "role"}, {"role": "operator"}, None),
        ({"role": "a.b"}, {"a": "b"}, None),
        ({"role": "groups", "roles": {"devs": "writer"}}, {"groups": ["writer"]}, None),
    ],
)
async def test_whose_a_token_is(
    issuer: Issuer,
    tmp_path: Path,
    rules: dict[str, Any],
    claims: dict[str, Any],
    found: tuple[str, Any] | None,
) -> None:
    authenticator = by_file(issuer, tmp_path, **rules)
    token = issuer.token(**claims)
    if found is None:
        await refused(authenticator, token)
    else:
        identity = await shown(authenticator, token)
        assert (identity.tenant, identity.role) == found


async def test_long_and_strange_names_stay_apart(issuer: Issuer, tmp_path: Path) -> None:
    authenticator = by_file(issuer, tmp_path)
    names = ["x" * 200, "x" * 201, "å b\r\n", "%C3%A5%20b%0D%0A"]
    found = [(await shown(authenticator, issuer.token(sub=name))).principal for name in names]
    assert len({*found}) == len(names)
    assert all(len(each) <= 128 and each.isascii() and each.isprintable() for each in found)
    # Nor is one that is written as what another's is shortened to.
    host = f"jwt:{issuer.url.removeprefix('http://')}:"
    crafted = [each.removeprefix(host) for each in found[:2]]
    again = [(await shown(authenticator, issuer.token(sub=name))).principal for name in crafted]
    assert not {*found} & {*again}


async def test_a_file_of_keys_is_read_again(issuer: Issuer, tmp_path: Path) -> None:
    authenticator = by_file(issuer, tmp_path)
    token = issuer.token()
    await shown(authenticator, token)
    (tmp_path / "keys.json").write_text("nonsense")
    await shown(authenticator, token)
    issuer.add("second")
    issuer.drop("first")
    (tmp_path / "keys.json").write_bytes(issuer.jwks())
    await refused(authenticator, token)  # Though it was remembered.
    await shown(authenticator, issuer.token())


async def test_a_key_withdrawn_while_a_token_is_checked_counts_no_more(
    issuer: Issuer, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(issuer.jwks())
    token = issuer.token()
    issuer.add("second")
    issuer.drop("first")
    withdrawn = issuer.jwks()

    class Withdrawing(FileKeys):
        async def find(self, kid: str | None) -> jwt.PyJWK | None:
            found = await super().find(kid)
            path.write_bytes(withdrawn)
            return found

    authenticator = JwtAuthenticator(_claims(issuer), Withdrawing(path))
    await shown(authenticator, token)  # By the key that it had when it was asked.
    await refused(authenticator, token)


@asynccontextmanager
async def fetching(issuer: Issuer, clock: Clock, **changes: Any) -> Any:
    keys = FetchedKeys(issuer.url, now=clock, **changes)
    async with keys.running():
        yield JwtAuthenticator(_claims(issuer), keys)


async def test_keys_are_fetched_once_and_not_for_each_call(issuer: Issuer) -> None:
    async with fetching(issuer, Clock()) as authenticator:
        tokens = [issuer.token(jti=str(number)) for number in range(50)]
        await asyncio.gather(*(shown(authenticator, token) for token in tokens))
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_an_unknown_key_is_asked_for_once_a_minute(issuer: Issuer) -> None:
    clock = Clock()
    async with fetching(issuer, clock) as authenticator:
        await shown(authenticator, issuer.token())
        issuer.add("second")
        token = issuer.token()
        for _ in range(20):  # No more than the first fetch.
            await refused(authenticator, token)
        assert issuer.asked.count("/keys") == 1
        clock.seconds = 61
        await shown(authenticator, token)
        stranger = issuer.token(kid="never", key=RSA)
        for _ in range(20):
            await refused(authenticator, stranger)
        assert issuer.asked.count("/keys") == 2


async def test_a_key_that_was_withdrawn_counts_no_more(issuer: Issuer) -> None:
    clock = Clock()
    async with fetching(issuer, clock, refresh=timedelta(seconds=0.05)) as authenticator:
        token = issuer.token()
        await shown(authenticator, token)
        issuer.add("second")
        issuer.drop("first")
        before = issuer.asked.count("/keys")
        async with asyncio.timeout(30):
            # The second begins when the first is over; what was asked before may bring the old one.
            while issuer.asked.count("/keys") < before + 2:  # noqa: ASYNC110 - of a thread.
                await asyncio.sleep(0.01)
        await refused(authenticator, token)


@pytest.mark.parametrize("broken", ["down", "hang", "flood", "redirect", "nonsense", "no HTTP"])
async def test_an_issuer_that_is_away_is_told_and_nothing_hangs(
    issuer: Issuer, broken: str
) -> None:
    issuer.broken = broken
    clock = Clock()
    patience = timedelta(seconds=0.2 if broken == "hang" else 3)
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: unseen.append(what))
    async with fetching(issuer, clock, patience=patience) as authenticator, asyncio.timeout(30):
        with pytest.raises(Unavailable):
            await shown(authenticator, issuer.token())
        issuer.broken = ""
        issuer.released.set()
        clock.seconds = 6
        token = issuer.token()
        while True:  # What was begun before may not be over.
            try:
                await shown(authenticator, token)
                break
            except Unavailable:
                clock.seconds += 6
    gc.collect()
    assert unseen == []


async def test_keys_count_while_the_issuer_is_away_but_not_for_ever(issuer: Issuer) -> None:
    clock = Clock()
    async with fetching(issuer, clock) as authenticator:
        token, other = issuer.token(), issuer.token(jti="other")
        await shown(authenticator, token)
        issuer.broken = "down"
        clock.seconds = 3600
        await shown(authenticator, other)
        clock.seconds = 25 * 3600
        with pytest.raises(Unavailable):
            await shown(authenticator, issuer.token(jti="third"))


@pytest.mark.parametrize(
    "says",
    [{"issuer": "https://other.test"}, {"jwks_uri": "http://10.0.0.1/keys"}, {"jwks_uri": 7}],
)
async def test_an_issuer_that_points_elsewhere(issuer: Issuer, says: dict[str, Any]) -> None:
    issuer.says = says
    async with fetching(issuer, Clock()) as authenticator:
        with pytest.raises(Unavailable):
            await shown(authenticator, issuer.token())


def test_which_addresses_are_safe() -> None:
    for url in ("https://issuer.test/x", "http://localhost:1", "http://[::1]/"):
        assert is_safe(url)
    for url in ("http://issuer.test", "ftp://127.0.0.1", "https://", "file:///etc/passwd", "x"):
        assert not is_safe(url)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


async def test_a_jwt_a_token_and_a_certificate_at_once(
    issuer: Issuer, tmp_path: Path, pki: Pki
) -> None:
    config = pki.config(
        tmp_path,
        jwt_issuer=issuer.url,
        jwt_audience=issuer.audience,
        jwt_tenant="acme",
        jwt_role_claim="groups",
        jwt_roles=("devs=writer",),
    )
    token = ("authorization", f"Bearer {TOKEN}")
    good = ("authorization", f"Bearer {issuer.token(groups=['devs'])}")
    bad = ("authorization", f"Bearer {issuer.token(groups=['devs'], key=RSA)}")
    async with serving(tmp_path, config) as served:
        by_token, by_certificate, _ = served.addresses
        async with (
            calling(by_token, pki.credentials(), token) as admin,
            calling(by_token, pki.credentials(), good) as writer,
            calling(by_certificate, pki.credentials(pki.bot)) as bot,
            calling(by_certificate, pki.credentials(pki.bot), bad) as eve,
        ):
            for caller in (admin, writer, bot):
                await caller.list()
            assert (await eve.failure()).reason == "UNAUTHENTICATED"
            denied = await failure(writer.limit())
            assert denied.code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"jwt_audience": ""}, "JWT_AUDIENCE: required"),
        ({"jwt_issuer": ""}, "JWT_ISSUER: required"),
        ({"jwt_issuer": "http://issuer.test"}, "JWT_ISSUER: not https"),
        ({"jwt_keys_file": Path("/nowhere")}, "/nowhere: no JWKS"),
        ({"jwt_keys_file": Path("/etc/hostname")}, "no JWKS"),
        ({"jwt_ca_file": Path("/nowhere")}, "JWT_CA_FILE: cannot be used"),
        ({"jwt_tenant": "ACME"}, "JWT_TENANT: not the name"),
        ({"jwt_roles": ("devs=writer",)}, "JWT_ROLE_CLAIM: required"),
        ({"jwt_role_claim": "x", "jwt_roles": ("devs",)}, "JWT_ROLES: not value="),
        ({"jwt_role_claim": "x", "jwt_roles": ("devs=service",)}, "JWT_ROLES: not value="),
    ],
)
async def test_settings_that_cannot_be(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    settings = {"jwt_issuer": "https://issuer.test", "jwt_audience": "cove"} | changes
    with pytest.raises(ConfigError, match=said):
        async with gateway(Config(state=tmp_path, runtime=tmp_path, **settings)):
            pass
