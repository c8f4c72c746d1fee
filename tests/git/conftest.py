"""Fixtures of the git service."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.git.remote import Rules
from tests.git.parts import Parts, make_source, parts


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


@pytest.fixture
async def git(tmp_path: Path) -> AsyncIterator[Parts]:
    state = tmp_path / "state"
    rules = Rules(local_roots=[Path("/")], closed=state)
    async with parts(state, rules) as made:
        yield made
