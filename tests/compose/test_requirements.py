"""What of the lock goes into the images, and into which."""

import re
import tomllib
from typing import Final

from tests.compose.daemon import SERVICES
from tests.compose.machine import ROOT

_DEVELOPERS: Final = {"mypy", "pytest", "ruff", "buf-bin", "mkdocs", "dagger-io", "mcp"}


def _entries(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes of each package of a lock."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / name).read_text("utf-8").strip()):
        package, version = re.match(r"(\S+)==(\S+)", entry).groups()  # type: ignore[union-attr]
        found[package] = version, frozenset(re.findall(r"sha256:[0-9a-f]{64}", entry))
    return found


def test_all_that_a_service_needs_is_locked_with_its_hashes() -> None:
    locked = _entries("requirements-server.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {each.split(">")[0] for each in project["dependencies"]} - {"cove"}
    assert needed | {"hatchling", "typing-extensions"} <= locked.keys()
    assert all(hashes for _, hashes in locked.values())


def test_it_is_what_the_tests_run_with() -> None:
    everything = _entries("requirements.lock")
    for package, entry in _entries("requirements-server.lock").items():
        assert everything[package] == entry


def test_what_only_developers_use_is_left_out() -> None:
    assert not _entries("requirements-server.lock").keys() & _DEVELOPERS


def test_the_images_hold_together_just_what_the_distributions_need() -> None:
    root, sdk = (
        tomllib.loads((ROOT / path).read_text("utf-8"))
        for path in ("pyproject.toml", "sdk/pyproject.toml")
    )
    held = {each for group in ("server", *SERVICES) for each in root["dependency-groups"][group]}
    needed = root["project"]["dependencies"] + sdk["project"]["dependencies"]
    for extra in ("docker", "otel", "postgres", "uvloop"):
        needed += root["project"]["optional-dependencies"][extra]
    assert held == {each.split(">")[0] for each in needed} - {"cove"}
