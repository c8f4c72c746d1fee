"""Frames of HTTP/2 that no client sends, or not so many of: what they come to is known."""

import os
import random
import resource
import secrets
import socket
import time
from contextlib import ExitStack, suppress
from typing import Any, Final

import grpc
import h2.errors
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hyperframe import frame as frames

from tests.attacks.wire.frames import Peer
from tests.attacks.wire.watched import Watched

EXAMPLES: Final = int(os.environ.get("COVE_WIRE_EXAMPLES", "200"))
FEW: Final = 20
GET: Final = "/cove.gateway.v1.WorkspaceService/GetWorkspace"
HEALTH: Final = "/grpc.health.v1.Health/Check"
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KINDS: Final = list(frames.FRAMES.values())


def serves(target: Watched) -> None:
    """Others are answered as ever."""
    with grpc.insecure_channel(target.suite.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_pings_without_end_are_answered_with_goaway(target: Watched) -> None:
    with target.unharmed(), Peer(target.suite.grpc) as peer:
        for _ in range(20):
            peer.ping()
        code, text = peer.goodbye()
        assert (code, text) == (h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, b"too_many_pings")
    serves(target)


def test_metadata_that_is_too_large_is_told_so(target: Watched) -> None:
    with target.unharmed(), Peer(target.suite.grpc) as peer:
        told = peer.answer(peer.begin(GET, ("x-large", "a" * 14_000), ("x-more", "b" * 14_000)))
        assert told["grpc-status"] == "16"  # It was read, and has no token.
        large = [(f"x-{number}", "a" * 12_000) for number in range(4)]
        told = peer.answer(peer.begin(GET, *large))
        assert told["grpc-status"] == "8"
        assert "metadata size exceeds" in told["grpc-message"]
        assert peer.answer(peer.begin(GET))["grpc-status"] == "16"  # It goes on being served.


def test_a_connection_has_only_so_many_streams(target: Watched) -> None:
    with Peer(target.suite.grpc) as peer:
        peer.begin(HEALTH)
        while not peer.h2.remote_settings.max_concurrent_streams < 2**31 - 1:
            assert peer.events() is not None
        assert peer.h2.remote_settings.max_concurrent_streams == 5000


def test_heads_without_requests_by_the_thousand_cost_little(target: Watched) -> None:
    with target.unharmed(), ExitStack() as stack:
        for _ in range(4):
            peer = stack.enter_context(Peer(target.suite.grpc))
            streams = [peer.begin(GET) for _ in range(250)]
            assert {peer.answer(streams[-1])["grpc-status"]} == {"16"}
        serves(target)


def test_streams_that_are_reset_at_once_cost_little(target: Watched) -> None:
    with target.unharmed(), Peer(target.suite.grpc) as peer:
        for _ in range(1000):
            stream = peer.begin(GET, ("authorization", f"Bearer {target.suite.token}"))
            peer.h2.reset_stream(stream)
        peer.flush()
        serves(target)


def at_random(target: Watched, seed: str, count: int) -> None:
    chance = random.Random(seed)
    with target.unharmed():
        for _ in range(count):
            with Peer(target.suite.grpc, checks=False) as peer:
                peer.begin(GET, ("authorization", f"Bearer {target.suite.token}"))
                peer.raw(*(_frame(chance) for _ in range(chance.randint(1, 12))))
            host, _, port = target.suite.grpc.rpartition(":")
            with socket.create_connection((host, int(port)), 20) as peer_:
                peer_.sendall(PREFACE * chance.randint(0, 1) + chance.randbytes(200))
        serves(target)


def _frame(chance: random.Random) -> bytes:
    """One of a kind there is, or of none, with a length that fits or does not."""
    kind = chance.choice(KINDS).type if chance.random() < 0.9 else chance.randint(0, 255)
    body = chance.randbytes(chance.choice([0, 1, 4, 5, 8, 9, 100, 20_000]))
    length = len(body) if chance.random() < 0.9 else chance.randint(0, 2**24 - 1)
    stream = chance.choice([0, 1, 1, 2, 3, 2**31 - 1])
    head = length.to_bytes(3, "big") + bytes([kind or 0, chance.randint(0, 255)])
    return head + stream.to_bytes(4, "big") + body


@pytest.mark.long  # A request that does not come is waited for.
def test_frames_at_random_end_a_connection_and_nothing_else(target: Watched) -> None:
    at_random(target, "few", FEW)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_many_frames_at_random_end_connections_and_nothing_else(target: Watched) -> None:
    seed = secrets.token_hex(4)
    print(f"seed {seed}")  # noqa: T201 - to repeat it.
    at_random(target, seed, 10 * EXAMPLES)


@pytest.mark.long  # To count memory and descriptors afterwards takes half a minute.
def test_a_host_has_only_so_many_connections_to_http(target: Watched) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    host, _, port = target.suite.http.rpartition(":")
    with target.unharmed():
        with ExitStack() as stack:
            for _ in range(1024):
                stack.enter_context(socket.create_connection((host, int(port)), 20))
            over = stack.enter_context(socket.create_connection((host, int(port)), 20))
            told = b""
            while data := over.recv(65536):
                told += data
            assert told.startswith(b"HTTP/1.1 429 ")
            assert b"retry-after: 1" in told
            assert b"ERROR_REASON_RATE_LIMITED" in told
            serves(target)
        await_free(host, int(port))


def await_free(host: str, port: int) -> None:
    """Those that were closed make room for others."""
    deadline = time.monotonic() + 20
    answer = b""
    while not answer.startswith(b"HTTP/1.1 200 "):
        assert time.monotonic() < deadline, answer
        with socket.create_connection((host, port), 20) as peer, suppress(ConnectionError):
            peer.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = peer.recv(65536)
