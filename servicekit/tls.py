"""Certificates: read again when their files change, and served without a restart.

A connection is judged when it is made; one that stands keeps what it was made with.
"""

import logging
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from servicekit.config import ConfigError, ServerConfig

_log = logging.getLogger(__name__)

_H2: Final = "h2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where a certificate is, PEM each."""

    certificate: Path
    """With those between it and the authority, its own first."""

    key: Path
    """Of nobody but its owner and group."""

    authorities: Path | None = None
    """Those by which the certificate at the other end is checked."""


@dataclass(frozen=True, slots=True)
class Pem:
    """What is in the files."""

    certificate: bytes
    key: bytes
    authorities: bytes


class _Unopened(ConfigError):
    """It may pass, though the files stay as they are."""


class Certificates:
    """What is in the files now. May be asked from any thread.

    Files that cannot be used, say halfway through a renewal, leave what was there before, and
    are told of in the log.
    """

    def __init__(self, files: Files) -> None:
        """Raises `ConfigError` if they cannot be used now."""
        self._files = files
        self._lock = threading.Lock()
        self._seen = self._state()
        self._pem = self._read()

    def current(self) -> Pem:
        with self._lock:
            try:
                seen = self._state()
                if seen != self._seen:
                    self._seen = seen
                    self._pem = self._read()
                    _log.info("the certificate was read again: %s", self._files.certificate)
            except ConfigError as error:
                _log.error("the certificate from before is kept: %s", error)
                if isinstance(error, _Unopened):
                    self._seen = ()
            return self._pem

    def _state(self) -> tuple[tuple[int, ...], ...]:
        found = []
        for path in (self._files.certificate, self._files.key, self._files.authorities):
            try:
                state = path.stat() if path else None
            except OSError:
                state = None
            found.append(
                (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size) if state else ()
            )
        return tuple(found)

    def _read(self) -> Pem:
        files = self._files
        pem = Pem(
            _bytes(files.certificate),
            _bytes(files.key, secret=True),
            _bytes(files.authorities) if files.authorities else b"",
        )
        with _refusing(f"{files.certificate}, {files.key}"):
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pem)
        if files.authorities:
            with _refusing(str(files.authorities)):
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(
                    cadata=pem.authorities.decode("ascii")
                )
        return pem


def certificates_of(config: ServerConfig) -> Certificates | None:
    """What a server shows, and by what it checks its callers. Raises `ConfigError`."""
    if not config.certificate_file or not config.key_file:
        return None
    return Certificates(
        Files(
            certificate=config.certificate_file,
            key=config.key_file,
            authorities=config.client_ca_file,
        )
    )


def server_credentials(certificates: Certificates, *, mutual: bool) -> grpc.ServerCredentials:
    """Of a gRPC port. `mutual`: nobody is let in without a certificate of the authorities."""
    shown = certificates.current()

    def configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
        pairs = [(pem.key, pem.certificate)]
        return grpc.ssl_server_certificate_configuration(pairs, pem.authorities or None)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks at each handshake, in a thread of its own; None: nothing has changed."""
        nonlocal shown
        pem = certificates.current()
        if pem is shown:
            return None
        shown = pem
        return configuration(pem)

    return grpc.dynamic_ssl_server_credentials(
        configuration(shown),
        fetch,  # type: ignore[arg-type] # The stub knows nothing of None.
        mutual,
    )


def client_context(pem: Pem, *, by_name: bool) -> ssl.SSLContext:
    """For gRPC to a service whose certificate is of the authorities. `by_name`: and is for the
    name by which it was called."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = by_name
    context.load_verify_locations(cadata=pem.authorities.decode("ascii"))
    context.set_alpn_protocols([_H2])
    _load(context, pem)
    return context


class ServerContext(ssl.SSLContext):
    """Of an asyncio server: each connection has what is in the files when it comes.

    Of callers a certificate is asked where there are authorities; who shows none is let in without.
    """

    _made_for: Pem | None = None
    _made: ssl.SSLContext
    _certificates: Certificates

    @classmethod
    def of(cls, certificates: Certificates) -> "ServerContext":
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context._certificates = certificates
        return context

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        # Asked by asyncio for each connection. A new context has new keys for its tickets, too, so
        # that no session goes on that an authority began which is gone.
        pem = self._certificates.current()
        if pem is not self._made_for:
            self._made, self._made_for = _server_context(pem), pem
        return self._made.wrap_bio(*arguments, **named)


def uris(transport: Any) -> tuple[str, ...]:
    """The URIs in the certificate that asyncio's peer has shown, and that was verified."""
    shown = transport.get_extra_info("peercert") or {}
    return tuple(value for kind, value in shown.get("subjectAltName", ()) if kind == "URI")


def _server_context(pem: Pem) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    _load(context, pem)
    if pem.authorities:
        context.load_verify_locations(cadata=pem.authorities.decode("ascii"))
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _load(context: ssl.SSLContext, pem: Pem) -> None:
    """The module reads files only, and those could have changed since they were read."""
    file = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(file, pem.key + b"\n" + pem.certificate)
        # No password: one that is needed would be asked for on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{file}", password=_no_password)
    finally:
        os.close(file)


def _no_password() -> str:
    raise ConfigError("the key has a password; store it without one")


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{name}: cannot be used: {error}") from None
    except OSError as error:
        raise _Unopened(f"{name}: cannot be used: {error.strerror}") from None


def _bytes(path: Path, *, secret: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except OSError as error:
        kind = ConfigError if isinstance(error, FileNotFoundError) else _Unopened
        raise kind(f"{path}: cannot be read: {error.strerror}") from None
    if secret and mode & 0o007:
        raise ConfigError(f"{path}: open to everyone; chmod 0600")
    if not text.strip():
        raise ConfigError(f"{path}: empty")
    return text
