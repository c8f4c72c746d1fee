"""Starts and stops a gRPC server the same way in every service and test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from prometheus_client import CollectorRegistry

from servicekit.admin import admin
from servicekit.chain import Chain
from servicekit.config import ConfigError, ServerConfig
from servicekit.health import NOT_SERVING, SERVING, Health
from servicekit.health import SERVICE as HEALTH
from servicekit.identity import Authenticator, ServiceAuthenticator
from servicekit.metrics import add_common
from servicekit.observer import Observer
from servicekit.otlp import recording
from servicekit.proxies import NO_PROXIES, Proxies
from servicekit.rates import Admission, everyone
from servicekit.secrets import read_secret
from servicekit.sockets import listen
from servicekit.tls import certificates_of, server_credentials
from servicekit.witness import Witnesses, nobody

_UNIX: Final = "unix:"
_REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server that is up."""

    addresses: tuple[str, ...]
    """What to dial, in the order of the config; ports are real ones."""

    health: Health = field(compare=False)

    http: str = ""
    """Where it also speaks HTTP, if it does."""

    @property
    def address(self) -> str:
        return self.addresses[0]


@asynccontextmanager
async def serving(
    config: ServerConfig,
    services: Mapping[str, Callable[[grpc.aio.Server], None]],
    *,
    authenticator: Authenticator | None = None,
    metrics: CollectorRegistry | None = None,
    witnesses: Witnesses = nobody,
    ready: bool = True,
    admission: Admission = everyone,
    proxies: Proxies = NO_PROXIES,
) -> AsyncIterator[Served]:
    """Serve `services`, by full name, while the block runs.

    Every server has health checks and reflection, so that meshes and grpcurl work.
    Without `ready` its health says so until somebody else sets it.
    Without an `authenticator` the server is a tool, known to the suite only. On
    leaving: NOT_SERVING, endless streams end, the rest has the grace to end.
    """
    registry = metrics or CollectorRegistry()
    add_common(registry, config)
    async with recording(config, registry) as recorder:
        chain = Chain(
            _for_tools(config) if authenticator is None else authenticator,
            Observer(registry),
            config.max_message_size,
            witnesses,
            recorder,
            admission,
            proxies,
        )
        status = SERVING if ready else NOT_SERVING
        # Who calls a tool is of the suite, and stays that.
        checking = chain.checked() if authenticator is not None else nullcontext()
        async with _served(config, services, chain, registry, status) as served, checking:
            yield served


@asynccontextmanager
async def _served(
    config: ServerConfig,
    services: Mapping[str, Callable[[grpc.aio.Server], None]],
    chain: Chain,
    registry: CollectorRegistry,
    status: int,
) -> AsyncIterator[Served]:
    server = grpc.aio.server(interceptors=[chain], options=_options(config))
    for add in services.values():
        add(server)
    health = Health()
    health.add_to(server)
    _add_reflection(server, [*services, HEALTH, reflection.SERVICE_NAME, _REFLECTION_V1])
    try:
        addresses = tuple(listen(*port) for port in _ports(config, server))
        await server.start()
        for name in ("", *services):
            health.set(name, status)
        async with admin(config.admin_address, registry):
            yield Served(addresses=addresses, health=health)
    finally:
        health.stop()
        chain.drain()
        await asyncio.shield(server.stop(config.shutdown_grace.total_seconds()))
        chain.flush()


def _ports(
    config: ServerConfig, server: grpc.aio.Server
) -> Iterator[tuple[str, Callable[[str], int]]]:
    """Each address, and what has the server listen there."""
    certificates = certificates_of(config)
    for address, mutual in config.ports:
        if certificates is None or address.startswith(_UNIX):
            yield address, server.add_insecure_port
        else:
            credentials = server_credentials(certificates, mutual=mutual)
            yield address, partial(server.add_secure_port, server_credentials=credentials)


def _for_tools(config: ServerConfig) -> ServiceAuthenticator:
    token = read_secret(config.service_token_file) if config.service_token_file else ""
    over_tcp = [address for address in config.addresses if not address.startswith(_UNIX)]
    if config.client_ca_file and not config.peers:
        raise ConfigError(f"{config.name_of('peers')}: required with a CLIENT_CA_FILE")
    if config.peers and not config.client_ca_file:
        raise ConfigError(f"{config.name_of('client_ca_file')}: required with PEERS")
    if over_tcp and not token and not config.peers:
        raise ConfigError(
            f"{config.name_of('service_token_file')}: required to listen on {over_tcp[0]}, "
            "or a CLIENT_CA_FILE and PEERS"
        )
    return ServiceAuthenticator(token, config.peers)


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    return [
        # The chain refuses what is over the limit, with a reason. gRPC itself, which
        # gives none, only guards the memory.
        ("grpc.max_receive_message_length", 2 * config.max_message_size + (1 << 20)),
        ("grpc.max_send_message_length", -1),
        # Beyond these gRPC answers CANCELLED, without a reason, in a burst of calls.
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 200_000),
        # And after so many seconds in which a service had no time to look at it: 30 without this.
        # How long a caller waits is the caller's affair.
        ("grpc.server_max_unrequested_time_in_server", 24 * 3600),
        ("grpc.so_reuseport", 0),  # Two servers on one port are a mistake.
        # What a caller may have sent that no handler has taken yet: gRPC would let it grow to
        # megabytes for each stream that stands still.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 512 << 10),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 5),
        # The second too: between them gRPC refuses at random.
        ("grpc.max_metadata_size", 32 << 10),
        ("grpc.absolute_max_metadata_size", 32 << 10),
        # Of one connection; HTTP's side has one for all its requests.
        ("grpc.max_concurrent_streams", 5000),
        ("grpc.max_allowed_incoming_connections", 10_000),
    ]


def _add_reflection(server: grpc.aio.Server, names: list[str]) -> None:
    """Both versions, of which grpcio knows the older: the messages are the same."""
    servicer = reflection.aio.ReflectionServicer(names)
    reflection.enable_server_reflection(names, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": handler}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, handlers),)
    )
