"""Settings of the gateway."""

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal

from servicekit.config import ConfigError, ServerConfig, together

_UNIX = "unix:"
_NODE = "{node}"
_OF_NODES = ("git", "provider", "executor")
_OF_JWT = ("jwt_audience", "jwt_keys_file", "jwt_ca_file", "jwt_tenant_claim", "jwt_role_claim")
_IDS = ("registry_id", "git_id", "provider_id", "executor_id")
_TAKING_TIME = (
    *("lease", "activity_interval", "progress_interval", "reconcile_interval"),
    *("create_limit", "operation_limit"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    """Each field is set by the variable `COVE_GATEWAY__<FIELD>`."""

    service: ClassVar[str] = "gateway"

    grpc: str = ""
    """Where callers reach it by gRPC, `host:port`, besides its unix socket. Port 0 takes a
    free one. Empty: only the unix socket."""

    http: str = ""
    """Where callers reach it by HTTP, `host:port`. Port 0 takes a free one. Empty: nowhere."""

    console: Path | None = None
    """Folder with the web console, as `make console` leaves one: it is served below `/console/`
    where HTTP is. Empty: there is none."""

    mtls: str = ""
    """Where callers reach it by gRPC who show a certificate of `CLIENT_CA_FILE`, `host:port`.
    At `GRPC` none is asked for, and at `HTTP` who shows none is let in by a token. Empty:
    nowhere."""

    certificates_file: Path | None = None
    """File that says who those callers are, in lines of a SPIFFE id (with `/*` at its end: all
    below it), a tenant, and `reader`, `writer`, `admin` or `operator`, who is an administrator
    of every tenant that it names; the first that fits decides. Read again when it changes."""

    proxies: tuple[str, ...] = ()
    """SPIFFE ids of the proxies, separated by commas, that come to `MTLS` or `HTTP` and say who
    calls: the last address in `x-forwarded-for`, and the certificate in `x-forwarded-client-cert`.
    From all others these headers mean nothing."""

    jwt_issuer: str = ""
    """Issuer (`iss`) of the tokens, JWTs, that callers may show: of OpenID Connect. Its keys are
    fetched from where it says at `/.well-known/openid-configuration`. Empty: no JWTs."""

    jwt_audience: str = ""
    """What must be in `aud` of each. Required with an issuer."""

    jwt_keys_file: Path | None = None
    """File with the issuer's keys (JWKS), read again when it changes; then nothing is fetched."""

    jwt_ca_file: Path | None = None
    """File (PEM) with authorities by which the issuer is checked besides the system's."""

    jwt_principal_claim: str = "sub"
    """The claim that names the caller. A name with dots is one, or the way to one."""

    jwt_tenant_claim: str = ""
    """The claim that names the tenant. Empty: all are of `JWT_TENANT`."""

    jwt_tenant: str = "default"
    """The tenant where no claim names it."""

    jwt_role_claim: str = ""
    """The claim with the role, or with a list of roles or groups, of which the highest counts.
    Empty: all have `JWT_ROLE`."""

    jwt_roles: tuple[str, ...] = ()
    """What the values of the claim mean, as `value=reader`, `value=writer`, `value=admin` or
    `value=operator`, separated by commas; others mean nothing. Empty: they are the first three
    of these words themselves."""

    jwt_role: Literal["reader", "writer", "admin"] = "reader"
    """The role where no claim names it."""

    token_file: Path | None = None
    """File (0600) with the token that callers show; read again when it changes.
    Default: `registry/token` in the state directory."""

    no_auth: bool = False
    """Let in whoever connects, with no token at all. Only on loopback and unix sockets."""

    registry: str = ""
    """Address of the registry. Empty: its unix socket in `COVE_RUNTIME`."""

    nodes: tuple[str, ...] = ()
    """The hosts that workspaces are made on, separated by commas; `dns:` and a name stands for
    all its addresses, which are looked up again all the time. Empty: one, of this machine."""

    git: str = ""
    """Address of git; `{node}` in it stands for each of the nodes. Empty: its unix socket in
    `COVE_RUNTIME`."""

    provider: str = ""
    """Address of the provider, likewise."""

    executor: str = ""
    """Address of the executor, likewise."""

    tools_ca_file: Path | None = None
    """File (PEM) with the authorities of the certificates of the registry, git, provider and
    executor. With it TCP to them is TLS. Read again when it changes, as the next two are."""

    tools_certificate_file: Path | None = None
    """File (PEM) with the certificate that they are shown. Default: `CERTIFICATE_FILE`."""

    tools_key_file: Path | None = None
    """File (0600, PEM) with the key of that. Default: `KEY_FILE`."""

    registry_id: str = ""
    """SPIFFE id that the registry must have. Empty: its certificate must be for the name of its
    host."""

    git_id: str = ""
    """SPIFFE id that git must have, likewise; `{node}` in it stands for each of the nodes."""

    provider_id: str = ""
    """SPIFFE id that the provider must have, likewise."""

    executor_id: str = ""
    """SPIFFE id that the executor must have, likewise."""

    lease: timedelta = timedelta(seconds=60)
    """How long an operation stays this gateway's when nothing more is heard of it."""

    undelete_window: timedelta = timedelta(hours=24)
    """How long the unsaved work of a deleted workspace is kept."""

    activity_interval: timedelta = timedelta(seconds=30)
    """How often at most it is written into the record of a workspace that it is used. The
    shortest `idle_timeout` is twice that."""

    create_limit: timedelta = timedelta(hours=1)
    """After this long a create that cannot be finished is given up and undone."""

    operation_limit: timedelta = timedelta(hours=24)
    """After this long a delete or an update that cannot be finished is given up: the workspace
    is FAILED and says why."""

    progress_interval: timedelta = timedelta(milliseconds=500)
    """How often the progress of a clone is written into the record."""

    reconcile_interval: timedelta = timedelta(seconds=60)
    """How often abandoned operations and orphans are looked for."""

    orphan_grace: timedelta = timedelta(minutes=10)
    """How long something must have been seen without a record to be removed, and a record
    without what it tells of to be marked as lost."""

    read_rate: int = 2000
    """How many calls a second a principal may make of one RPC that changes nothing; of any rate
    two seconds may come at once. 0: no limit, here and below."""

    write_rate: int = 1000
    """Likewise of one that changes something."""

    heavy_rate: int = 200
    """Likewise of one that changes something and may take longer than half a minute: it makes,
    copies, commits, merges, pushes or removes, or runs a command while the caller waits."""

    open_calls: int = 1000
    """How many calls of one RPC a principal may have open at once, streams among them."""

    total_calls: int = 5000
    """How many calls of all may be open at once. Health is always answered."""

    stranger_rate: int = 100
    """How many calls a second with no valid credentials are looked at from one host; of these
    ten seconds may come at once. Who was let in before is let in all the same."""

    def __post_init__(self) -> None:
        ServerConfig.__post_init__(self)  # super() does not work in a class with slots.
        together(self, "tools_certificate_file", "tools_key_file")
        self._check_identity()
        for name in _TAKING_TIME:
            if getattr(self, name) <= timedelta(0):
                raise ConfigError(f"{self.name_of(name)}: must be more than 0")
        for name in _OF_NODES if self.nodes else ():
            if _NODE not in getattr(self, name):
                raise ConfigError(
                    f"COVE_GATEWAY__{name.upper()}: with COVE_GATEWAY__NODES it needs {_NODE}, say "
                    f"{_NODE}:7501"
                )
        if self.no_auth:
            for address in (*self.addresses, self.http):
                if not _local(address):
                    raise ConfigError(
                        f"{address}: others can reach it; not with COVE_GATEWAY__NO_AUTH"
                    )

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to listen for gRPC, those for callers first."""
        return tuple(address for address, _ in self.ports)

    @property
    def ports(self) -> tuple[tuple[str, bool], ...]:
        inner = self.address or (self._socket,)
        if self.http and not any(each.startswith(_UNIX) for each in inner):
            inner = (*inner, self._socket)  # What HTTP is served through.
        known = self.client_ca_file is not None
        ports = ((self.grpc, False), (self.mtls, True), *((each, known) for each in inner))
        return tuple(port for port in ports if port[0])

    @property
    def _socket(self) -> str:
        return f"{_UNIX}{self.runtime}/{self.service}"

    def _check_identity(self) -> None:
        if self.peers:
            raise ConfigError(
                f"{self.name_of('peers')}: callers are in {self.name_of('certificates_file')}"
            )
        shown = self.tools_certificate_file or self.certificate_file
        for name, without, missing in (
            ("mtls", "client_ca_file", not self.client_ca_file),
            ("mtls", "certificates_file", not (self.certificates_file or self.proxies)),
            ("certificates_file", "client_ca_file", not self.client_ca_file),
            ("proxies", "client_ca_file", not self.client_ca_file),
            ("tools_ca_file", "tools_certificate_file", not shown),
            ("tools_certificate_file", "tools_ca_file", not self.tools_ca_file),
            *((each, "tools_ca_file", not self.tools_ca_file) for each in _IDS),
            ("jwt_issuer", "jwt_audience", not self.jwt_audience),
            *((each, "jwt_issuer", not self.jwt_issuer) for each in _OF_JWT),
            ("jwt_roles", "jwt_role_claim", not self.jwt_role_claim),
        ):
            if getattr(self, name) and missing:
                raise ConfigError(f"{self.name_of(without)}: required with {name.upper()}")

    @property
    def token_path(self) -> Path:
        return self.token_file or self.state / "registry" / "token"

    def tool(self, name: str) -> str:
        """Address of the registry, git, provider or executor."""
        address: str = getattr(self, name)
        return address or f"{_UNIX}{self.runtime}/{name}"

    def at(self, name: str, node: str) -> str:
        """Address of git, provider or executor of a node."""
        return self.tool(name).replace(_NODE, node)

    def id_of(self, name: str, node: str) -> str:
        """SPIFFE id of a tool of a node; empty where the name of its host counts."""
        found: str = getattr(self, f"{name}_id")
        return found.replace(_NODE, node)


def _local(address: str) -> bool:
    """Whether only processes of this machine reach the address."""
    host = address.rpartition(":")[0].strip("[]")
    if not address or address.startswith(_UNIX) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
