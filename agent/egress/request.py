"""The one request of a connection, read strictly: what can be read in two ways is refused."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agent.egress.names import AmbiguousError, Host, canonical, port_of, shown, split_authority

_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]+) (HTTP/1\.[01])")
_HEADER: Final = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*"
    rb"[\x21-\x7e\x80-\xff])?)?)[ \t]*"
)
_HOP: Final = frozenset(
    (b"connection", b"host", b"keep-alive", b"proxy-authenticate", b"proxy-authorization")
) | {b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"content-length", b"upgrade"}
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_HTTP: Final = 80

Headers = list[tuple[bytes, bytes]]


class BadRequestError(ValueError):
    """Not a request that is served here. The message is for the client."""


@dataclass(frozen=True, slots=True)
class Request:
    """To whom, and what to say there first."""

    host: Host
    port: int
    tunnel: bool
    """CONNECT: all that follows is the two ends' own."""
    head: bytes = b""
    """Of the request as it is passed on."""
    length: int | None = 0
    """Bytes of the body; None: it comes in chunks."""


def parsed(head: bytes) -> Request:
    """The request with this head, the empty line at its end included. Raises BadRequestError."""
    first, *lines = head[:-4].split(b"\r\n")
    line = _LINE.fullmatch(first)
    if not line:
        raise BadRequestError("not a request line of HTTP/1")
    headers = [_header(each) for each in lines]
    method, target, version = line.groups()
    try:
        if method == b"CONNECT":
            return _tunnel(target.decode(), headers)
        return _plain(method, target.decode(), version, headers)
    except AmbiguousError as error:
        raise BadRequestError(str(error)) from None


def _header(line: bytes) -> tuple[bytes, bytes]:
    found = _HEADER.fullmatch(line)
    if not found:
        raise BadRequestError("a malformed header")
    return found[1].lower(), found[2]


def _tunnel(target: str, headers: Headers) -> Request:
    host, port = _authority(target, 0)
    _agree(headers, host, port, needed=False)
    for name in (b"content-length", b"transfer-encoding"):
        if any(value != b"0" for value in _all(headers, name)):
            raise BadRequestError("CONNECT has no body")
    return Request(host, port, tunnel=True)


def _plain(method: bytes, target: str, version: bytes, headers: Headers) -> Request:
    scheme, _, rest = target.partition("://")
    if scheme.lower() != "http":
        raise BadRequestError("only http:// URLs and CONNECT are served")
    end = next((at for at, letter in enumerate(rest) if letter in "/?#"), len(rest))
    authority, path = rest[:end], rest[end:]
    if "#" in path or "@" in authority:
        raise BadRequestError("a URL with a fragment or a user")
    host, port = _authority(authority, _HTTP)
    _agree(headers, host, port, needed=version == b"HTTP/1.1")
    length = _length(headers, version)
    dropped = _HOP | _listed(_all(headers, b"connection"))
    shown_port = "" if port == _HTTP else f":{port}"
    said = [
        f"{method.decode()} {path if path.startswith('/') else '/' + path} HTTP/1.1".encode(),
        f"Host: {shown(host)}{shown_port}".encode(),
        *(name + b": " + value for name, value in headers if name not in dropped),
        b"Connection: close",
    ]
    if length is None:
        said.append(b"Transfer-Encoding: chunked")
    elif length or _all(headers, b"content-length"):
        said.append(b"Content-Length: %d" % length)
    return Request(host, port, tunnel=False, head=b"\r\n".join([*said, b"", b""]), length=length)


def _authority(text: str, usual: int) -> tuple[Host, int]:
    host, port = split_authority(text)
    if not port and not usual:
        raise BadRequestError("no port")
    return canonical(host), port_of(port) if port else usual


def _agree(headers: Headers, host: Host, port: int, *, needed: bool) -> None:
    """Whoever reads the Host header reads the same host."""
    given = _all(headers, b"host")
    if len(given) > 1 or (needed and not given):
        raise BadRequestError("not one Host header")
    for each in given:
        try:
            text = each.decode("ascii")
        except UnicodeDecodeError:
            raise BadRequestError("not a host name") from None
        other, other_port = split_authority(text)
        if canonical(other) != host or (other_port and port_of(other_port) != port):
            raise BadRequestError("the Host header names another host")


def _length(headers: Headers, version: bytes) -> int | None:
    lengths, codings = _all(headers, b"content-length"), _all(headers, b"transfer-encoding")
    if codings:
        if lengths or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise BadRequestError("a body whose end is in doubt")
        if version == b"HTTP/1.0":
            raise BadRequestError("chunks in HTTP/1.0")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadRequestError("a body whose end is in doubt")
    return int(lengths[0])


def _all(headers: Headers, name: bytes) -> list[bytes]:
    return [value for each, value in headers if each == name]


def _listed(values: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(each.strip().lower() for value in values for each in value.split(b","))
