"""TLS to a gateway: by what it is checked, what it is shown, and what a failed handshake means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import grpc

from cove import status
from cove.handshake import HTTPS

AUTHORITIES: Final = "COVE_CA_FILE"
CERTIFICATE: Final = "COVE_CERTIFICATE_FILE"
KEY: Final = "COVE_KEY_FILE"

_HTTP: Final = "http://"
_PORT: Final = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM each; read once, when the client is made."""

    authorities: bytes | None = None
    """None: the public ones that gRPC brings."""

    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        """What COVE_CA_FILE, COVE_CERTIFICATE_FILE and COVE_KEY_FILE name. Raises
        `InvalidArgument` for what cannot be read, and for one of the last two alone."""
        for name, without in ((CERTIFICATE, KEY), (KEY, CERTIFICATE)):
            if env.get(name) and not env.get(without):
                raise status.InvalidArgument(
                    "a certificate and its key belong together",
                    metadata={"missing": without},
                    remedy=f"Set {without} too.",
                )
        return cls(
            authorities=_read(env, AUTHORITIES),
            certificate=_read(env, CERTIFICATE),
            key=_read(env, KEY),
        )

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)


def wanted(env: Mapping[str, str]) -> bool:
    """Whether somebody who set these means TLS."""
    return any(env.get(each) for each in (AUTHORITIES, CERTIFICATE, KEY))


def is_secure(address: str) -> bool:
    return address.startswith(HTTPS)


def target(address: str) -> str:
    """What gRPC dials."""
    bare = address.removeprefix(HTTPS).removeprefix(_HTTP).rstrip("/")
    if is_secure(address) and not bare.rpartition(":")[2].isdecimal():
        return f"{bare}:{_PORT}"
    return bare if bare and not bare.startswith("unix:") else address


def channel(
    address: str, tls: Tls | None, options: tuple[tuple[str, Any], ...] = ()
) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target(address), options=options)
    return grpc.aio.secure_channel(target(address), tls.credentials(), options=options)


def _read(env: Mapping[str, str], name: str) -> bytes | None:
    path = env.get(name)
    if not path:
        return None
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise _unusable(name, path, error.strerror or "") from None
    if b"-----BEGIN " not in text:
        raise _unusable(name, path, "not PEM")
    return text


def _unusable(name: str, path: str, cause: str) -> status.CoveError:
    return status.InvalidArgument(
        f"the file of {name} cannot be used",
        metadata={"file": path, "cause": cause},
        remedy=f"Name a PEM file with {name}, or unset it.",
    )
