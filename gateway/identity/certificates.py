"""Callers who show a certificate: which SPIFFE id is which tenant's, and what it may."""

import logging
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.identity.names import RIGHTS, TENANT, Rights, principal
from servicekit.config import ConfigError
from servicekit.errors import Unauthenticated
from servicekit.identity import Caller, Identity

_log = logging.getLogger(__name__)

_SCHEME: Final = "certificate"
_ANY: Final = "/*"
_WORDS: Final = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """Whose a certificate is."""

    uri: str
    """The whole one, or with `/*` at its end for all below it."""

    tenant: str
    rights: Rights

    def fits(self, uri: str) -> bool:
        if self.uri.endswith(_ANY):
            return uri.startswith(self.uri[:-1])
        return uri == self.uri


class Handed:
    """How the HTTP side tells the gRPC side of a certificate that it has verified.

    As an `authorization` of a kind that nobody else can make: it has a secret of this process.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_urlsafe(32)

    def authorization(self, uris: Sequence[str]) -> str:
        """Empty if there is nothing to tell."""
        fit = len(uris) == 1 and uris[0].isascii() and uris[0].isprintable() and " " not in uris[0]
        return f"{_SCHEME} {self._secret} {uris[0]}" if fit else ""

    def uri(self, caller: Caller) -> str:
        """Raises `Unauthenticated` for what was not made here."""
        _, _, rest = caller.metadata["authorization"].partition(" ")
        secret, _, uri = rest.partition(" ")
        if not secrets.compare_digest(secret.encode(), self._secret.encode()):
            raise Unauthenticated("no valid token")
        return uri


class CertificateAuthenticator:
    """Lets in whose SPIFFE id is in the file; the first line that fits decides.

    The file is read again when it changes. One that cannot be used lets nobody in.
    """

    def __init__(self, path: Path, handed: Handed) -> None:
        """Raises `ConfigError` if the file cannot be used."""
        self._path = path
        self._handed = handed
        try:
            self._seen: tuple[int, ...] = self._state()
            self._rules = read(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None

    @staticmethod
    def applies(caller: Caller) -> bool:
        """Whether a certificate is what the caller wants to be known by."""
        shown = caller.metadata.get("authorization")
        if shown is None:
            return bool(caller.certificate)
        return shown.partition(" ")[0] == _SCHEME

    async def authenticate(self, caller: Caller) -> Identity:
        handed = "authorization" in caller.metadata
        uri = self._handed.uri(caller) if handed else caller.spiffe_id
        for rule in self._current() if uri else ():
            if rule.fits(uri):
                role, operator = rule.rights
                return Identity(principal(uri), rule.tenant, role, operator=operator)
        raise Unauthenticated("the certificate is of nobody who is known")

    def _current(self) -> tuple[Rule, ...]:
        try:
            seen = self._state()
            if seen != self._seen:
                self._rules, self._seen = (), seen
                self._rules = read(self._path)
        except (OSError, ConfigError) as error:
            _log.error("no caller with a certificate is let in: %s", error)
            self._rules = ()
            if isinstance(error, OSError):  # It may pass, though the file stays as it is.
                self._seen = ()
        return self._rules

    def _state(self) -> tuple[int, ...]:
        found = self._path.stat()
        return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def read(path: Path) -> tuple[Rule, ...]:
    """What the file says: lines of a URI, a tenant and a role. Raises `ConfigError`, `OSError`."""
    if path.stat().st_mode & 0o022:
        raise ConfigError(f"{path}: others can change it; chmod go-w")
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return tuple(_rules(path, lines))


def _rules(path: Path, lines: Sequence[str]) -> Iterator[Rule]:
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != _WORDS:
            raise ConfigError(f"{path}, line {number}: not a URI, a tenant and a role")
        uri, tenant, role = words
        if not re.fullmatch(r"[a-z]+://[!-~]+", uri) or "*" in uri.removesuffix(_ANY):
            raise ConfigError(f"{path}, line {number}: not a URI, maybe with /* at its end: {uri}")
        if not TENANT.fullmatch(tenant):
            raise ConfigError(f"{path}, line {number}: not the name of a tenant: {tenant}")
        if role not in RIGHTS:
            raise ConfigError(f"{path}, line {number}: not one of {', '.join(RIGHTS)}: {role}")
        yield Rule(uri, tenant, RIGHTS[role])
