"""How a client finds its gateway."""

import json
from pathlib import Path

import pytest

from cove.endpoint import DEFAULT_ADDRESS, FILE, Endpoint, find


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("secret\n")
    left = {
        "grpc": "127.0.0.1:7",
        "token_file": str(tmp_path / "token"),
        "services": {"git": "unix:/x"},
    }
    (tmp_path / FILE).write_text(json.dumps(left))
    return tmp_path


def test_what_cove_up_left_is_used(state: Path) -> None:
    found = find({"COVE_STATE": str(state)})
    assert found == Endpoint(address="127.0.0.1:7", token="secret", services={"git": "unix:/x"})


def test_variables_win_over_what_cove_up_left(state: Path) -> None:
    env = {"COVE_STATE": str(state), "COVE_ADDRESS": "h:1", "COVE_TOKEN": "t"}
    assert find(env) == Endpoint(address="h:1", token="t")


def test_a_token_is_taken_without_its_line_end() -> None:
    assert find({"COVE_ADDRESS": "h:1", "COVE_TOKEN": "t\r\n"}).token == "t"


def test_the_token_is_not_sent_to_another_gateway(state: Path) -> None:
    assert find({"COVE_STATE": str(state), "COVE_ADDRESS": "h:1"}).token == ""


def test_what_is_given_wins_over_variables(state: Path) -> None:
    env = {"COVE_ADDRESS": "h:1", "COVE_TOKEN": "t"}
    assert find(env, address="h:2", token="u") == Endpoint(address="h:2", token="u")
    assert find({}, state=state).address == "127.0.0.1:7"


@pytest.mark.parametrize("content", ["", "[]", "nonsense", None])
def test_without_anything_left_the_default_is_tried(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / FILE).write_text(content)
    assert find({}, state=tmp_path) == Endpoint(address=DEFAULT_ADDRESS)
