"""What of the lock goes into the image."""

import subprocess
import sys
import tomllib

from tests.compose.machine import ROOT


def _printed() -> str:
    argv = [sys.executable, "deploy/compose/requirements.py", "requirements.lock", "pyproject.toml"]
    return subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def _pinned(lock: str) -> set[str]:
    return {line.split("==")[0] for line in lock.splitlines() if "==" in line}


def test_all_that_a_service_needs_is_kept_with_its_hashes() -> None:
    printed = _printed()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {each.split(">")[0] for each in project["dependencies"]} - {"cove"}
    assert needed | {"hatchling", "typing-extensions"} <= _pinned(printed)
    entries = [line for line in printed.splitlines() if not line.startswith(" ")]
    assert printed.count("--hash=sha256:") >= len(entries)


def test_what_only_developers_use_is_left_out() -> None:
    assert not _pinned(_printed()) & {"mypy", "pytest", "ruff", "buf-bin", "dagger-io"}
