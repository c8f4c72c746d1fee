"""What `cove up` refuses, at once and with a remedy; and where it puts its directories."""

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cove_server.errors import CannotStart
from cove_server.places import Places
from cove_server.ports import reserved


async def refused(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run `cove up`, which is to end by itself; returns its status and its standard error."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-P", "-m", "cove", "up", *arguments],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": "/", **variables},
    )
    async with asyncio.timeout(40):
        stdout, stderr = await process.communicate()
    assert stdout == b""
    assert process.returncode is not None
    assert b"Traceback" not in stderr
    return process.returncode, stderr.decode()


@pytest.fixture
def free(tmp_path: Path) -> Iterator[list[str]]:
    """Arguments with which it would start. Without a directory named its sockets would be in one
    of the system's, as the path of the state is too long for them."""
    with tempfile.TemporaryDirectory(prefix="cv-", dir="/tmp") as runtime:
        listen = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        yield ["--state", str(tmp_path / "s"), "--runtime", f"{runtime}/r", *listen]


async def test_a_port_that_is_taken(free: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, errors = await refused(*free, "--grpc", address)
    assert status == 1
    assert f"error: cannot listen on {address}: Address already in use" in errors
    assert "remedy: " in errors


@pytest.mark.parametrize("address", ["7420", ":", "127.0.0.1:x", "127.0.0.1:70000"])
async def test_an_address_that_is_none(free: list[str], address: str) -> None:
    status, errors = await refused(*free, "--http", address)
    assert status == 2
    assert f"error: {address} is not an address" in errors


async def test_a_variable_that_no_service_knows(free: list[str]) -> None:
    status, errors = await refused(*free, COVE_GIT__NONSENSE="1")
    assert status == 2
    assert "COVE_GIT__NONSENSE: unknown" in errors
    assert "error: git ended with status 2" in errors


async def test_no_authentication_where_others_can_connect(free: list[str]) -> None:
    status, errors = await refused(*free, "--no-auth", "--grpc", "0.0.0.0:0")
    assert status == 2
    assert "NO_AUTH" in errors


async def test_a_state_directory_that_is_open_to_others(tmp_path: Path, free: list[str]) -> None:
    (tmp_path / "s").mkdir(mode=0o755)
    status, errors = await refused(*free)
    assert status == 1
    assert "chmod 0700" in errors


async def test_a_runtime_directory_that_is_too_long(tmp_path: Path, free: list[str]) -> None:
    status, errors = await refused(*free, "--runtime", str(tmp_path / ("r" * 90)))
    assert status == 1
    assert "remedy: Name a short directory with --runtime." in errors


def test_sockets_are_in_the_state_directory_where_paths_are_short() -> None:
    assert Places.choose({}, Path("/s"), None) == Places(Path("/s"), Path("/s/run"))


def test_sockets_are_elsewhere_where_paths_are_long() -> None:
    state = Path("/" + "s" * 90)
    chosen = Places.choose({"XDG_RUNTIME_DIR": "/run/user/7"}, state, None)
    assert chosen.state == state
    assert len(str(chosen.runtime)) < 40
    assert chosen == Places.choose({"XDG_RUNTIME_DIR": "/run/user/7"}, state, None)
    assert chosen != Places.choose({"XDG_RUNTIME_DIR": "/run/user/7"}, state / "t", None)


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user has other directories")
def test_root_has_the_directories_of_the_system() -> None:
    assert Places.choose({}, None, None) == Places(Path("/var/lib/cove"), Path("/run/cove"))


def test_what_is_asked_for_wins() -> None:
    env = {"COVE_STATE": "/e", "COVE_RUNTIME": "/f"}
    assert Places.choose(env, None, None) == Places(Path("/e"), Path("/f"))
    assert Places.choose(env, Path("/a"), Path("/b")) == Places(Path("/a"), Path("/b"))


def test_a_reserved_port_is_nobody_elses() -> None:
    with reserved("127.0.0.1:0") as address:
        host, _, port = address.rpartition(":")
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((host, int(port)))
        with socket.create_server((host, int(port))):  # As a service does: SO_REUSEADDR.
            pass
        with socket.create_server((host, int(port))):
            pass


def test_a_lock_is_held_as_long_as_a_service_holds_it(tmp_path: Path) -> None:
    places = Places(tmp_path / "s", tmp_path / "r")
    with places.held() as lock:
        kept = os.dup(lock)
    try:
        with pytest.raises(CannotStart, match="still running"), places.held(0.1):
            pass
    finally:
        os.close(kept)
    with places.held():
        pass
