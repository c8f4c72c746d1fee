"""Fills a config dataclass from environment variables.

A field `name` of the config of service `x` is `COVE_X__NAME`. All problems are
told at once. `COVE_STATE` and `COVE_RUNTIME` are shared by all services of a node.
"""

import math
import os
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    Self,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

ByteSize: TypeAlias = Annotated[int, "bytes"]
"""A number of bytes; written `4096`, `512KiB`, `2GiB`."""

_MAX_SOCKET_PATH: Final = 100
_UNIX: Final = "unix:"
_PORTS: Final = 65535
_LARGEST_MESSAGE: Final = 512 << 20
"""gRPC counts in 32 bits, and is told of twice as much."""

# Kubernetes tells every container of its services by variables of these forms.
_INJECTED: Final = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_COLLECTOR: Final = re.compile(
    r"https?://[^/@:\s]+(:\d+)?/?|https?://\[[0-9a-f:]+\]:\d+/?|unix:/.+"
)
_HOST_AND_PORT: Final = re.compile(r"(?:[^:/\[\]\s]*|\[[^/\[\]\s]+\]):([0-9]{1,5})")
_DURATION: Final = re.compile(r"(?=.)((?P<d>\d+)d)?((?P<h>\d+)h)?((?P<m>\d+)m)?((?P<s>\d+)s)?")
_SIZE: Final = re.compile(r"(\d+)\s*([KMGT]i?)?B?")
_UNITS: Final[Mapping[str, int]] = {"": 1} | {
    f"{letter}{binary}": (1024 if binary else 1000) ** power
    for power, letter in enumerate("KMGT", start=1)
    for binary in ("", "i")
}


class ConfigError(Exception):
    """The variables make no valid config. The message lists every problem."""


class StartError(Exception):
    """The config is right, and the server still cannot start. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What every server is told. A service's own config is a subclass."""

    service: ClassVar[str]

    state: Path = field(metadata={"variable": "COVE_STATE"})
    """Directory of everything that is kept, the same for all processes of a node; 0700.
    Default: `$XDG_STATE_HOME/cove`, as root `/var/lib/cove`."""

    runtime: Path = field(metadata={"variable": "COVE_RUNTIME"})
    """Directory of the sockets; 0700. Default: `$XDG_RUNTIME_DIR/cove`, else as root
    `/run/cove`, as another user `run` below `COVE_STATE`."""

    address: tuple[str, ...] = ()
    """Where to listen: `host:port` or `unix:/path`, several with commas. Port 0 takes a
    free one. Empty: the unix socket named after the service in `COVE_RUNTIME`."""

    service_token_file: Path | None = None
    """File (0600) with the secret that callers over TCP prove themselves with. Without
    it only callers on a unix socket are trusted."""

    certificate_file: Path | None = None
    """File (PEM) with the certificate that is shown over TCP, and those between it and its
    authority. With it all TCP is TLS. Read again when it changes, as the next two are."""

    key_file: Path | None = None
    """File (0600, PEM, without password) with the key of the certificate."""

    client_ca_file: Path | None = None
    """File (PEM) with the authorities of callers' certificates; with it a caller by gRPC over
    TCP must show one."""

    peers: tuple[str, ...] = ()
    """SPIFFE ids of those who may call over TCP, separated by commas: of the gateways. Required
    with `CLIENT_CA_FILE`, as anybody else may have a certificate of the same authority."""

    admin_address: str = ""
    """Where Prometheus metrics are served over HTTP: a loopback `host:port` or
    `unix:/path`. Empty: nowhere."""

    traces: str = field(default="", metadata={"variable": "COVE_TRACES"})
    """Collector of traces that takes OTLP over gRPC: `http://host:port`, `https://host:port` or
    `unix:/path`. Empty: no traces. Needs the extra `otel`."""

    traces_ratio: float = field(default=1.0, metadata={"variable": "COVE_TRACES_RATIO"})
    """Which part of the calls that come without a `traceparent` is traced, 0 to 1. Of one that
    comes with it the caller decides."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged."""

    shutdown_grace: timedelta = timedelta(seconds=10)
    """How long open calls may go on after SIGTERM."""

    max_message_size: ByteSize = 4 << 20
    """The largest request message that is taken."""

    def __post_init__(self) -> None:
        for name in ("state", "runtime"):
            path: Path = getattr(self, name)
            if not path.is_absolute():
                raise ConfigError(f"COVE_{name.upper()}: not an absolute path: {path}")
        if self.traces and not _COLLECTOR.fullmatch(self.traces):
            raise ConfigError("COVE_TRACES: not http://host:port, https://host:port or unix:/path")
        if not 0 <= self.traces_ratio <= 1:
            raise ConfigError("COVE_TRACES_RATIO: not from 0 to 1")
        if not 0 < self.max_message_size <= _LARGEST_MESSAGE:
            raise ConfigError(f"{self.name_of('max_message_size')}: not from 1 to 512MiB")
        for address in self.addresses:
            path_length = len(os.fsencode(address.removeprefix(_UNIX)))
            if not address.startswith(_UNIX):
                check_port(address)
            elif path_length > _MAX_SOCKET_PATH:
                raise ConfigError(f"{address}: longer than {_MAX_SOCKET_PATH} bytes")
        together(self, "certificate_file", "key_file")
        if self.client_ca_file and not self.certificate_file:
            raise ConfigError(f"{self.name_of('certificate_file')}: required with a CLIENT_CA_FILE")

    def name_of(self, name: str) -> str:
        """The variable of a field that has no other."""
        return f"COVE_{self.service.upper()}__{name.upper()}"

    @property
    def ports(self) -> tuple[tuple[str, bool], ...]:
        """Where to listen, and whether callers over TCP must show a certificate there."""
        return tuple((each, self.client_ca_file is not None) for each in self.addresses)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to listen, with the default filled in."""
        return self.address or (f"unix:{self.runtime}/{self.service}",)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raises `ConfigError`, which names every bad variable at once."""
        return from_env(cls, env)


C = TypeVar("C", bound=ServerConfig)


def from_env(cls: type[C], env: Mapping[str, str]) -> C:
    """Make a `cls` from the variables of its service and the shared ones."""
    prefix = f"COVE_{cls.service.upper()}_"
    kinds = get_type_hints(cls, include_extras=True)
    known = {variable(cls, item): item for item in fields(cls)}
    problems = [
        _unknown(name, prefix, known)
        for name in env
        if name.startswith(prefix) and name not in known
    ]
    values: dict[str, Any] = _shared(env)
    for name, item in known.items():
        if env.get(name):
            try:
                values[item.name] = parse(kinds[item.name], env[name])
            except ValueError as error:
                problems.append(f"{name}: {error}")
        elif required(item) and item.name not in values:
            problems.append(f"{name}: required")
    if not any(problems):
        try:
            return cls(**values)
        except ConfigError as error:
            problems.append(str(error))
    raise ConfigError("\n".join(sorted(filter(None, problems))))


def check_port(address: str) -> None:
    """Raises `ConfigError` unless it is `host:port`: gRPC by itself takes a port above 65535 for
    another one, and listens on 443 where none is told."""
    found = _HOST_AND_PORT.fullmatch(address)
    if not found or int(found[1]) > _PORTS:
        raise ConfigError(f"{address}: not host:port, with a port from 0 to {_PORTS}")


def together(config: ServerConfig, one: str, other: str) -> None:
    """Raises `ConfigError` if only one of two fields is set."""
    for name, without in ((one, other), (other, one)):
        if getattr(config, name) and not getattr(config, without):
            raise ConfigError(f"{config.name_of(without)}: required with {name.upper()}")


def variable(cls: type[ServerConfig], item: "Field[Any]") -> str:
    """Name of the variable that sets the field."""
    shared: str = item.metadata.get("variable", "")
    return shared or f"COVE_{cls.service.upper()}__{item.name.upper()}"


def required(item: "Field[Any]") -> bool:
    """Whether the field has no default."""
    return item.default is MISSING and item.default_factory is MISSING


def default_state(env: Mapping[str, str]) -> Path:
    """Where `COVE_STATE` is when it is not set."""
    if os.geteuid() == 0:
        return Path("/var/lib/cove")
    base = env.get("XDG_STATE_HOME") or f"{env.get('HOME', '')}/.local/state"
    return Path(base) / "cove"


def default_runtime(env: Mapping[str, str], state: Path) -> Path:
    """Where `COVE_RUNTIME` is when it is not set."""
    if base := env.get("XDG_RUNTIME_DIR"):
        return Path(base) / "cove"
    return Path("/run/cove") if os.geteuid() == 0 else state / "run"


def parse(kind: Any, text: str) -> Any:
    """`text` as a value of the type. Raises `ValueError` that says what is wrong."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return parse(next(each for each in arguments if each is not types.NoneType), text)
    if origin is Literal:
        if text not in arguments:
            raise ValueError(f"not one of {', '.join(arguments)}")
        return text
    if origin is tuple:
        return tuple(parse(arguments[0], part.strip()) for part in text.split(",") if part.strip())
    return _PARSERS[kind](text)


def _shared(env: Mapping[str, str]) -> dict[str, Path]:
    state = Path(env.get("COVE_STATE") or default_state(env))
    return {"state": state, "runtime": default_runtime(env, state)}


def _unknown(name: str, prefix: str, known: Mapping[str, Any]) -> str:
    """What is wrong with a variable that is no field; empty if nothing is."""
    meant = f"{prefix}_{name.removeprefix(prefix)}"
    if name.startswith(f"{prefix}_"):
        return f"{name}: unknown"
    if _INJECTED.fullmatch(name):
        return ""
    return f"{name}: unknown" + (f" (did you mean {meant}?)" if meant in known else "")


def _flag(text: str) -> bool:
    flags = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in flags:
        raise ValueError("not true or false")
    return flags[text.lower()]


def _integer(text: str) -> int:
    """None below 0: where there is no limit that is 0, and -1 would be one that lets nothing in."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError("not a whole number of 0 or more")
    return number


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):  # No bound would ever be reached.
        raise ValueError("not a number")
    return number


def _duration(text: str) -> timedelta:
    try:
        if found := _DURATION.fullmatch(text):
            days, hours, minutes, whole = (int(found[unit] or 0) for unit in "dhms")
            return timedelta(days=days, hours=hours, minutes=minutes, seconds=whole)
        seconds = timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        seconds = timedelta(-1)
    if seconds < timedelta(0):
        raise ValueError("not a duration like 30, 30s, 5m or 1h30m")
    return seconds


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError("not a size like 4096, 512KiB or 2GiB")
    return int(found[1]) * _UNITS[found[2] or ""]


_PARSERS: Final[Mapping[Any, Callable[[str], Any]]] = {
    str: str,
    bool: _flag,
    int: _integer,
    float: _number,
    Path: Path,
    timedelta: _duration,
    ByteSize: _bytes,
}
