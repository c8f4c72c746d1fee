"""An issuer of tokens on loopback: ours, no product. It publishes keys as OpenID Connect says."""

import json
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa


class Issuer:
    def __init__(self) -> None:
        self.url = "https://issuer.test"
        self.audience = "cove"
        self.asked: list[str] = []
        self.says: dict[str, Any] = {}
        """What differs in what it says of itself."""
        self.broken = ""
        """`down`, or what it does instead: `hang`, `flood`, `redirect`, `nonsense`, `no HTTP`."""
        self.released = threading.Event()
        self._keys: dict[str, Any] = {}
        self.add("first")

    def add(self, kid: str, key: Any = None) -> None:
        """Sign with this one from now on."""
        self._keys[kid] = key or ec.generate_private_key(ec.SECP256R1())
        self.kid = kid

    def drop(self, kid: str) -> None:
        del self._keys[kid]

    def token(self, *, kid: str | None = "", key: Any = None, alg: str = "", **claims: Any) -> str:
        """`claims` are added; those that are None are left out."""
        now = int(time.time())
        said = {"iss": self.url, "aud": self.audience, "sub": "ada", "exp": now + 300, "iat": now}
        said = {name: value for name, value in (said | claims).items() if value is not None}
        key = key if key is not None else self._keys[kid or self.kid]
        headers = {} if kid is None else {"kid": kid or self.kid}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The library warns of weak keys.
            return jwt.encode(said, key, alg or algorithm(key), headers=headers)

    def key(self) -> Any:
        """The one that it signs with."""
        return self._keys[self.kid]

    def jwks(self, *extra: dict[str, Any]) -> bytes:
        keys = [public(key) | {"kid": kid} for kid, key in self._keys.items()]
        return json.dumps({"keys": [*keys, *extra]}).encode()


def algorithm(key: Any) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return "ES256"
    return "EdDSA" if isinstance(key, ed25519.Ed25519PrivateKey) else "RS256"


def public(key: Any) -> dict[str, Any]:
    """As a JWK."""
    kinds: dict[str, Any] = {
        "ES256": jwt.algorithms.ECAlgorithm,
        "EdDSA": jwt.algorithms.OKPAlgorithm,
        "RS256": jwt.algorithms.RSAAlgorithm,
    }
    found: dict[str, Any] = json.loads(kinds[algorithm(key)].to_jwk(key.public_key()))
    found.pop("key_ops", None)
    return found


def rsa_key(size: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, size)


@contextmanager
def serving() -> Iterator[Issuer]:
    """One that is up while the block runs."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            if issuer.broken == "hang":
                issuer.released.wait(30)
            if issuer.broken == "no HTTP":
                self.wfile.write(b"hello\r\n\r\n")
                return
            if issuer.broken == "redirect":
                self.send_response(302)
                self.send_header("location", f"{issuer.url}/elsewhere{self.path}")
                self.end_headers()
                return
            self.send_response(503 if issuer.broken == "down" else 200)
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # It was too much.
                self.wfile.write(self._body())

        def _body(self) -> bytes:
            if issuer.broken == "flood":
                return b" " * (64 << 20)
            if issuer.broken == "nonsense":
                return b"<html>"
            path = self.path.removeprefix("/elsewhere")
            if path == "/.well-known/openid-configuration":
                about = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
                return json.dumps(about | issuer.says).encode()
            return issuer.jwks()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield issuer
    finally:
        issuer.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
