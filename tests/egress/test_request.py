"""How a request is read: one way, or not at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.egress.body import Incoming, pass_on
from agent.egress.names import shown
from agent.egress.request import BadRequestError, parsed


def _head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def test_reads_a_tunnel() -> None:
    request = parsed(_head("CONNECT Example.org:443 HTTP/1.1", "Host: example.org:443"))
    assert (request.host, request.port, request.tunnel) == ("example.org", 443, True)


def test_passes_on_a_request_as_the_origin_takes_it() -> None:
    request = parsed(
        _head(
            "POST http://Example.org:8080/a?b=c HTTP/1.1",
            "Host: example.org:8080",
            "Accept: */*",
            "Connection: keep-alive, X-Hop",
            "X-Hop: secret of the first hop",
            "Proxy-Authorization: Basic abc",
            "Proxy-Connection: keep-alive",
            "Upgrade: h2c",
            "Content-Length: 5",
        )
    )
    assert request.head == _head(
        "POST /a?b=c HTTP/1.1",
        "Host: example.org:8080",
        "accept: */*",
        "Connection: close",
        "Content-Length: 5",
    )
    assert (request.port, request.length) == (8080, 5)


def test_reads_a_request_without_a_path() -> None:
    request = parsed(_head("GET http://example.org?q HTTP/1.0"))
    assert request.head.startswith(b"GET /?q HTTP/1.1\r\nHost: example.org\r\n")


GET = "GET http://a.example/ HTTP/1.1"
POST = "POST http://a.example/ HTTP/1.1"
HOST = "Host: a.example"


@pytest.mark.parametrize(
    "head",
    [
        _head("GET / HTTP/1.1", HOST),
        _head("GET https://a.example/ HTTP/1.1", HOST),
        _head("GET ftp://a.example/ HTTP/1.1", HOST),
        _head("GET http://user@a.example/ HTTP/1.1", HOST),
        _head("GET http://a.example@b.example/ HTTP/1.1", "Host: b.example"),
        _head("GET http://a.example\\@b.example/ HTTP/1.1", HOST),
        _head("GET http://a.example/#x HTTP/1.1", HOST),
        _head("GET http://a.example/ HTTP/2.0", HOST),
        _head("GET  http://a.example/ HTTP/1.1", HOST),
        _head("GET http://a.example/ b HTTP/1.1", HOST),
        _head("GET http://0x7f.1/ HTTP/1.1", "Host: 0x7f.1"),
        _head("GET http://%61.example/ HTTP/1.1", HOST),
        _head("GET http://a.example:080/ HTTP/1.1", HOST),
        _head(GET),
        _head(GET, "Host: b.example"),
        _head(GET, "Host: a.example:81"),
        _head(GET, HOST, HOST),
        _head(GET, HOST, "Host: b.example"),
        _head(GET, "Host : a.example"),
        _head(GET, HOST, " folded: x"),
        _head(GET, HOST, "X: a\0b"),
        _head(GET, HOST, "X: a\rb"),
        _head(GET, HOST, "X: a\nY: b"),
        _head(GET, HOST, "no colon"),
        _head(GET, HOST, ": no name"),
        _head(POST, HOST, "Content-Length: 5", "Content-Length: 5"),
        _head(POST, HOST, "Content-Length: 5, 5"),
        _head(POST, HOST, "Content-Length: +5"),
        _head(POST, HOST, "Content-Length: -1"),
        _head(POST, HOST, "Content-Length: 0x5"),
        _head(POST, HOST, "Content-Length: 5", "Transfer-Encoding: chunked"),
        _head(POST, HOST, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        _head(POST, HOST, "Transfer-Encoding: xchunked"),
        _head(POST, HOST, "Transfer-Encoding: gzip, chunked"),
        _head(POST, HOST, "Transfer-Encoding: identity"),
        _head(POST, HOST, "Transfer-Encoding:\x0bchunked"),
        _head("POST http://a.example/ HTTP/1.0", "Transfer-Encoding: chunked"),
        _head("CONNECT a.example HTTP/1.1"),
        _head("CONNECT a.example:443/ HTTP/1.1"),
        _head("CONNECT http://a.example:443 HTTP/1.1"),
        _head("CONNECT a.example:443 HTTP/1.1", "Host: b.example:443"),
        _head("CONNECT a.example:443 HTTP/1.1", "Host: a.example:80"),
        _head("CONNECT a.example:443 HTTP/1.1", "Content-Length: 4"),
        _head("CONNECT a.example:443 HTTP/1.1", "Transfer-Encoding: chunked"),
        _head("CONNECT [::1%25lo]:443 HTTP/1.1"),
        _head("connect a.example:443 HTTP/1.1"),
        b"\x05\x01\x00\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
        b"\r\n\r\n",
        b"\r\n" + _head(GET, HOST),
    ],
)
def test_refuses_what_can_be_read_in_two_ways(head: bytes) -> None:
    with pytest.raises(BadRequestError):
        parsed(head)


_BYTES = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"/", b"@", b"%", b"[", b"]", b"#", b"\0"),
        *(b"\xff", b"Host: b.example", b"Content-Length: 3", b"Transfer-Encoding: chunked"),
        *(b"GET ", b"http://", b"Connection: host", b"a.example", b"HTTP/1.1", b"127.1", b":80"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.booleans(), _BYTES), max_size=4))
def test_whatever_is_sent_is_refused_or_means_one_thing(
    changes: list[tuple[int, bool, bytes]],
) -> None:
    head = _head(POST, HOST, "Content-Length: 3", "X-Y: z")[:-4]
    for at, instead, data in changes:
        head = head[:at] + data + head[at + len(data) * instead :]
    try:
        request = parsed(head + b"\r\n\r\n")
    except BadRequestError:
        return
    assert not request.tunnel
    line, *headers = request.head[:-4].split(b"\r\n")
    names = [each.partition(b":")[0].lower() for each in headers]
    assert b"\n" not in request.head.replace(b"\r\n", b"")
    assert b"\r" not in request.head.replace(b"\r\n", b"")
    assert line.count(b" ") == 2
    assert names.count(b"host") == names.count(b"connection") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert headers[0].startswith(b"Host: " + shown(request.host).encode())


async def _passed(data: bytes, length: int | None) -> tuple[bytes, bytes]:
    """What is passed on, and what is left."""
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
    sent = bytearray()

    async def receive(most: int) -> bytes:
        piece = pieces.pop(0) if pieces else b""
        if len(piece) > most:
            pieces.insert(0, piece[most:])
        return piece[:most]

    async def send(piece: bytes) -> None:
        sent.extend(piece)

    incoming = Incoming(receive, b"")
    await pass_on(incoming, length, send)
    left = b""
    while piece := await incoming.some():
        left += piece
    return bytes(sent), left


async def test_a_body_ends_where_it_says() -> None:
    assert await _passed(b"helloGET /admin HTTP/1.1\r\n\r\n", 5) == (
        b"hello",
        b"GET /admin HTTP/1.1\r\n\r\n",
    )


async def test_chunks_end_where_they_say_without_extensions_and_trailers() -> None:
    data = (
        b"5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nGET /admin HTTP/1.1\r\n\r\n"
    )
    assert await _passed(data, None) == (
        b"5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n",
        b"GET /admin HTTP/1.1\r\n\r\n",
    )


@pytest.mark.parametrize(
    "data",
    [
        *(b"5\nhello\r\n0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n"),
        *(b"-5\r\nhello\r\n", b"\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"5\r\nhel", b"5"),
        *(b"f" * 40 + b"\r\n", b"5" + b";" * 5000, b"5\r\nhello\r\n5\r\nhello\r\n"),
    ],
)
async def test_refuses_chunks_that_are_none(data: bytes) -> None:
    with pytest.raises(BadRequestError):
        await _passed(data, None)
