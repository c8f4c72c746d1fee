"""Fixtures of the git service."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.git.record import Mode
from services.git.remote import Rules
from tests.git.parts import Parts, make_source, parts


@pytest.fixture(scope="session")
def prototype_of_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("prototype") / "source")


@pytest.fixture
def source(tmp_path: Path, prototype_of_source: Path) -> Path:
    """A repository with one commit: a copy, which is made faster than a new one."""
    return shutil.copytree(prototype_of_source, tmp_path / "source", symlinks=True)


@pytest.fixture
def mode() -> Mode | None:
    """How worktrees are made: None is what the host can."""
    return None


@pytest.fixture
async def git(tmp_path: Path, mode: Mode | None) -> AsyncIterator[Parts]:
    state = tmp_path / "state"
    rules = Rules(local_roots=[Path("/")], closed=state)
    async with parts(state, rules, mode=mode) as made:
        yield made
