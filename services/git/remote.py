"""Which remotes may be talked to, and at which address."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from services.git.errors import RemoteForbidden, RemoteUnavailable, RepositoryNotFound

_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\.?")
# Programs take these for addresses, each in its own way, and the one that was looked at is moot.
_NUMERIC: Final = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\.?")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SCP: Final = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[^@/:]+):(?P<path>[^:].*)")
# Git would take it for a path on the host `user`.
_SCP_SECRET: Final = re.compile(r"[^@/:]+:[^@/]*@[^/]*:")
_PORTS: Final = {"https": 443, "http": 80, "ssh": 22}
# Ranges in which an IPv4 address, perhaps a private one, is written as an IPv6 address.
_TRANSLATED: Final = ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


class Scheme(Enum):
    """How a remote is reached."""

    FILE = "file"
    HTTPS = "https"
    HTTP = "http"
    SSH = "ssh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A repository somewhere else. Holds no credentials."""

    scheme: Scheme
    path: str
    host: str = ""
    port: int = 0
    user: str = ""

    @property
    def url(self) -> str:
        """As git and people write it."""
        if self.scheme is Scheme.FILE:
            return f"file://{quote(self.path)}"
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme.value] else f":{self.port}"
        return f"{self.scheme.value}://{user}{host}{port}{self.path}"

    @property
    def key(self) -> str:
        """Names the repository on disk."""
        return sha256(self.url.rstrip("/").encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the operator allows."""

    local_roots: Sequence[Path] = ()
    """Directories in which repositories may be used by path; `/` allows all."""
    allowed_hosts: frozenset[str] = frozenset()
    """Hosts (`name` or `name:port`) that may have a private or loopback address."""
    http_hosts: frozenset[str] = frozenset()
    """Hosts that may be talked to without TLS."""
    closed: Path | None = None
    """A directory whose repositories are nobody's: our own state."""

    def parse(self, url: str) -> Remote:
        """The remote that `url` names. Raises `RemoteForbidden` and `RepositoryNotFound`."""
        if _has_secret(url):
            raise _forbidden(
                "credentials",
                "credentials do not belong in the URL",
                remedy="Send them as credentials, and change a password that was in a URL.",
            )
        if not url.isprintable() or any(char.isspace() for char in url):
            raise _forbidden("characters", "the URL has characters that none may have")
        if url.startswith("-") or "::" in url.split("/")[0]:
            raise _forbidden("form", "the URL is of a form that is not allowed")
        if url.startswith("/"):
            return self._file(url)
        if "://" not in url:
            return self._scp(url)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _forbidden("form", "the URL cannot be read") from None
        if parts.query or parts.fragment:
            raise _forbidden("form", "the URL may have no query and no fragment")
        scheme = parts.scheme.lower()
        if scheme == "file":
            if parts.hostname not in (None, "", "localhost"):
                raise _forbidden("form", "a file URL may name no host")
            return self._file(unquote(parts.path))
        if scheme not in _PORTS:
            raise _forbidden("scheme", "only https, ssh and file are allowed")
        return self._network(
            Scheme(scheme), parts.hostname or "", port, parts.username or "", parts.path
        )

    def _scp(self, url: str) -> Remote:
        found = _SCP.fullmatch(url)
        if not found:
            raise _forbidden("form", "give a URL, or an absolute path")
        path = found["path"]
        return self._network(
            Scheme.SSH, found["host"], None, found["user"] or "", f"/{path.lstrip('/')}"
        )

    def _network(self, scheme: Scheme, host: str, port: int | None, user: str, path: str) -> Remote:
        host = host.lower()
        named = _HOST.fullmatch(host) and not _NUMERIC.fullmatch(host)
        if not named and not is_address(host):
            raise _forbidden("host", "the host's name is not a valid one")
        if user and not _USER.fullmatch(user):
            raise _forbidden("user", "the user's name is not a valid one")
        if not path.strip("/") or "/-" in path or "~" in path:
            raise _forbidden("path", "the path is not one of a repository")
        number = _PORTS[scheme.value] if port is None else port
        remote = Remote(scheme=scheme, host=host, port=number, user=user, path=path)
        if scheme is Scheme.HTTP and not self._lists(self.http_hosts, remote):
            raise _forbidden("scheme", "http is not allowed: use https")
        return remote

    def _file(self, text: str) -> Remote:
        if "\0" in text or "\n" in text or ".." in text.split("/"):
            raise _forbidden("path", "the path is not allowed")
        try:
            path = Path(text).resolve(strict=True)
        except (OSError, RuntimeError):
            path = Path(text)
            if self.is_open(path):
                raise RepositoryNotFound("no repository is there", repository=text) from None
        if not self.is_open(path):
            raise _forbidden("local_roots", "repositories at this path are not allowed here")
        if not path.is_dir():
            raise RepositoryNotFound("no repository is there", repository=text)
        return Remote(scheme=Scheme.FILE, path=str(path))

    def is_open(self, path: Path) -> bool:
        """Whether a repository at `path`, which has no links in it, may be used."""
        if self.closed is not None and path.is_relative_to(self.closed):
            return False
        return any(path.is_relative_to(root) for root in self.local_roots)

    async def address(self, remote: Remote, resolve: Resolver | None = None) -> str:
        """Resolve the host once. The answer is the only address that may be used.

        Raises `RemoteForbidden` when it is not a public one, `RemoteUnavailable`
        when there is none.
        """
        try:
            found = await (resolve or _resolve)(remote.host, remote.port)
        except OSError:
            raise RemoteUnavailable(
                "the host's name has no address", repository=remote.url
            ) from None
        if self._lists(self.allowed_hosts, remote) and found:
            return found[0]
        if not found or not all(_is_public(address) for address in found):
            raise _forbidden("address", "the host's address is not a public one")
        return found[0]

    def _lists(self, hosts: frozenset[str], remote: Remote) -> bool:
        return remote.host in hosts or f"{remote.host}:{remote.port}" in hosts


async def _resolve(host: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # IPv4 first: a host without an IPv6 route would wait for nothing.
    return sorted((str(address[0]) for *_, address in found), key=lambda text: ":" in text)


def _has_secret(url: str) -> bool:
    """Whether it names a password, or a user who may be a token, however it is written."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _SCP_SECRET.match(url) is not None
    user, found, _ = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")
    return bool(found) and (scheme.lower() != "ssh" or ":" in user or "%" in user)


def is_address(host: str) -> bool:
    """Whether it is an address as it is written in full, of no zone."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in ipaddress.ip_network(block) for block in _TRANSLATED):
            return False
        if address.is_site_local:
            return False
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
    return address.is_global and not address.is_multicast and not address.is_reserved


def _forbidden(rule: str, message: str, *, remedy: str = "") -> RemoteForbidden:
    return RemoteForbidden("repository", message, rule=rule, remedy=remedy)
