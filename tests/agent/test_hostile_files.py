"""Hostile archives and paths by the thousand: nothing outside is touched, and nothing grows."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.removal import remove_tree

ROOT = Path(__file__).parent.parent.parent
MANY = os.environ.get("COVE_FUZZ_ARCHIVES", "1500")
"""Archives, and as many rows of paths, in `make test-long`."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Who has no rights comes here too."""
    made = Path(tempfile.mkdtemp(prefix="cove-", dir="/tmp"))
    try:
        yield made
    finally:
        above = os.open(made.parent, os.O_PATH)
        remove_tree(os.fsencode(made.name), above, unlock=True)
        os.close(above)


def run(folder: Path, examples: str, *how: str) -> str:
    """In a process that gives up all rights first."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.agent.fuzz.arena", str(folder), examples, *how],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return done.stdout


def test_nothing_hostile_leads_out(folder: Path) -> None:
    assert "'paths': " in run(folder, "60")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nothing_hostile_leads_out_by_the_thousand(folder: Path) -> None:
    assert "'paths': " in run(folder, MANY, "random")
