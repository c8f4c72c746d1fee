"""Configs out of environment variables."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from servicekit.config import ByteSize, ConfigError, ServerConfig

BASE = {"COVE_STATE": "/s", "COVE_RUNTIME": "/r"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    service: ClassVar[str] = "demo"

    database: Path
    text: str = ""
    number: int = 1
    share: float = 0.5
    flag: bool = False
    age: timedelta = timedelta(0)
    size: ByteSize = 0
    names: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    mode: Literal["a", "b"] = "a"
    file: Path | None = None


def load(**values: str) -> Config:
    env = BASE | {"COVE_DEMO__DATABASE": "/db"}
    return Config.from_env(env | {f"COVE_DEMO__{name.upper()}": values[name] for name in values})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "a b", "a b"),
        ("number", "0", 0),
        ("share", "0.25", 0.25),
        ("flag", "true", True),
        ("flag", "0", False),
        ("age", "90", timedelta(seconds=90)),
        ("age", "0.5", timedelta(milliseconds=500)),
        ("age", "1h30m", timedelta(minutes=90)),
        ("age", "2d", timedelta(days=2)),
        ("size", "4096", 4096),
        ("size", "512KiB", 512 * 1024),
        ("size", "2GiB", 2 << 30),
        ("size", "1MB", 1_000_000),
        ("names", "a, b,", ("a", "b")),
        ("roots", "/a,/b", (Path("/a"), Path("/b"))),
        ("mode", "b", "b"),
        ("file", "/f", Path("/f")),
        ("file", "", None),
    ],
)
def test_a_variable_fills_its_field(name: str, text: str, value: Any) -> None:
    assert getattr(load(**{name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("number", "x", "not a whole number of 0 or more"),
        ("number", "-3", "not a whole number of 0 or more"),
        ("share", "x", "not a number"),
        ("share", "nan", "not a number"),
        ("flag", "maybe", "not true or false"),
        ("age", "soon", "not a duration like 30, 30s, 5m or 1h30m"),
        ("age", "-5", "not a duration like 30, 30s, 5m or 1h30m"),
        ("age", "nan", "not a duration like 30, 30s, 5m or 1h30m"),
        ("age", "9" * 12 + "d", "not a duration like 30, 30s, 5m or 1h30m"),
        ("max_message_size", "0", "not from 1 to 512MiB"),
        ("max_message_size", "1GiB", "not from 1 to 512MiB"),
        ("size", "big", "not a size like 4096, 512KiB or 2GiB"),
        ("mode", "c", "not one of a, b"),
    ],
)
def test_a_bad_value_is_told(name: str, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**{name: text})
    assert str(caught.value) == f"COVE_DEMO__{name.upper()}: {problem}"


def test_all_problems_are_told_at_once() -> None:
    env = BASE | {"COVE_DEMO__NUMBER": "x", "COVE_DEMO__ADRESS": "y", "COVE_DEMO_TEXT": "z"}
    with pytest.raises(ConfigError) as caught:
        Config.from_env(env)
    assert str(caught.value).splitlines() == [
        "COVE_DEMO_TEXT: unknown (did you mean COVE_DEMO__TEXT?)",
        "COVE_DEMO__ADRESS: unknown",
        "COVE_DEMO__DATABASE: required",
        "COVE_DEMO__NUMBER: not a whole number of 0 or more",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "COVE_DEMO_SERVICE_HOST",
        "COVE_DEMO_SERVICE_PORT",
        "COVE_DEMO_SERVICE_PORT_GRPC",
        "COVE_DEMO_PORT",
        "COVE_DEMO_PORT_7421_TCP",
        "COVE_DEMO_PORT_7421_TCP_ADDR",
        "COVE_DEMO_HEADLESS_PORT_7421_UDP_PROTO",
        "COVE_OTHER__ANYTHING",
        "COVE_ADDRESS",
    ],
)
def test_what_is_meant_for_others_is_ignored(name: str) -> None:
    Config.from_env(BASE | {"COVE_DEMO__DATABASE": "/db", name: "tcp://10.0.0.1:7421"})


def test_the_address_is_by_default_a_socket_in_the_runtime_folder() -> None:
    assert load().addresses == ("unix:/r/demo",)
    assert load(address="127.0.0.1:1,unix:/x").addresses == ("127.0.0.1:1", "unix:/x")


def test_paths_that_cannot_work_are_told() -> None:
    with pytest.raises(ConfigError, match="COVE_STATE: not an absolute path"):
        Config.from_env({"COVE_STATE": "s", "COVE_RUNTIME": "/r", "COVE_DEMO__DATABASE": "/db"})
    with pytest.raises(ConfigError, match="longer than 100 bytes"):
        load(address="unix:/" + "a" * 100)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", "::1", "::1:7", "a/b:1", "[::1]"],
)
def test_an_address_has_a_port(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(address=f"127.0.0.1:0,{address}")
    assert str(caught.value) == f"{address}: not host:port, with a port from 0 to 65535"
    load(address="127.0.0.1:65535,[::1]:0,:7,host.example:1")


def test_state_and_runtime_have_defaults() -> None:
    env = {"COVE_DEMO__DATABASE": "/db", "XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/ada"}
    config = Config.from_env(env)
    assert config.state.is_absolute()
    assert config.runtime == Path("/run/user/7/cove")
