"""How a client finds its gateway."""

import json
import os
from pathlib import Path

import pytest

from cove import status
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
def test_the_gateway_of_a_state_directory_is_no_other(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / FILE).write_text(content)
    with pytest.raises(status.Unavailable) as caught:
        find({}, state=tmp_path)
    assert "cove up" in caught.value.remedy
    with pytest.raises(status.Unavailable):
        find({"COVE_STATE": str(tmp_path)})


@pytest.mark.skipif(os.geteuid() == 0, reason="root's default directory may be in use")
def test_without_anything_said_or_left_the_default_is_tried(tmp_path: Path) -> None:
    found = find({"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)})
    assert found.address == DEFAULT_ADDRESS
