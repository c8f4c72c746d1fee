"""A gateway over TLS, and the certificates of all that have to do with it."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from gateway.app import gateway
from gateway.config import Config
from servicekit.server import Served
from services.registry.app import registry
from services.registry.config import Config as RegistryConfig
from tests.support.certificates import Authority, Paths

TOKEN: Final = "the-token"
BOT, READER = "spiffe://acme.test/ci/bot", "spiffe://acme.test/dashboard"
RULES: Final = f"""\
# who                        tenant   may
{READER}                      acme     reader   # and nothing else
spiffe://acme.test/ci/*       acme     admin
"""
HOST: Final = ("localhost", "127.0.0.1")


@dataclass
class Pki:
    """Authorities of the gateway's own certificate, of its callers, and of the services."""

    folder: Path

    def __post_init__(self) -> None:
        self.public = Authority(self.folder, "public")
        self.callers = Authority(self.folder, "callers")
        self.inner = Authority(self.folder, "inner")
        self.front = self.public.certify(hosts=HOST)
        self.bot = self.callers.certify(BOT)
        self.reader = self.callers.certify(READER)
        self.rules = self.folder / "rules"
        self.rules.write_text(RULES)
        self.token = self.folder / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(TOKEN)

    def config(self, folder: Path, **changes: Any) -> Config:
        settings: dict[str, Any] = {
            "state": folder / "state",
            "runtime": folder / "run",
            "grpc": "127.0.0.1:0",
            "mtls": "127.0.0.1:0",
            "http": "127.0.0.1:0",
            "certificate_file": self.front.certificate,
            "key_file": self.front.key,
            "client_ca_file": self.callers.path,
            "certificates_file": self.rules,
            "token_file": self.token,
        }
        return Config(**settings | changes)

    def credentials(self, shown: Paths | None = None) -> grpc.ChannelCredentials:
        roots = self.public.path.read_bytes()
        if shown is None:
            return grpc.ssl_channel_credentials(roots)
        key, certificate = shown.key.read_bytes(), shown.certificate.read_bytes()
        return grpc.ssl_channel_credentials(roots, key, certificate)

    def context(self, shown: Paths | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.public.path))
        if shown:
            context.load_cert_chain(shown.certificate, shown.key)
        return context


@asynccontextmanager
async def serving(folder: Path, config: Config) -> AsyncIterator[Served]:
    inner = RegistryConfig(state=folder / "state", runtime=folder / "run")
    async with registry(inner), gateway(config) as served:
        yield served
