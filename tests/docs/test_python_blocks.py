"""What the documentation shows in Python is run against a real suite, page by page."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.docs import blocks
from tests.support.repository import git, make_repository
from tests.support.suite import Suite, running_suite

_ROOT: Final = Path(__file__).parent.parent.parent
_PAGES: Final = [
    page
    for page in sorted([*_ROOT.glob("*.md"), *_ROOT.glob("*/*.md"), *_ROOT.glob("docs/*/*.md")])
    if blocks.blocks(page.read_text())
]
_ORIGINS: Final = ("https://example.org/app.git", "file:///srv/repos/app.git")
"""Repositories that pages speak of."""

_FILES: Final = {
    "Makefile": "test:\n\t@echo tested\n\ndocs:\n\t@echo made\n",
    "app.py": 'print("hello")\n',
    ".gitignore": "build/\n",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    async with running_suite(tmp_path_factory.mktemp("docs")) as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
async def test_what_a_page_shows_works(suite: Suite, tmp_path: Path, page: Path) -> None:
    make_repository(tmp_path / "work", _FILES)
    git(tmp_path, "clone", "--quiet", "--bare", "work", "app.git")
    text = page.read_text()
    for origin in _ORIGINS:
        text = text.replace(origin, f"file://{tmp_path}/app.git")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-Werror", blocks.__file__, str(page.relative_to(_ROOT)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)}, cwd=tmp_path,
    )  # fmt: skip
    _, stderr = await process.communicate(text.encode())
    assert process.returncode == 0, stderr.decode()
    assert not stderr, stderr.decode()


def test_a_page_that_prints_something_else_is_told_with_its_line() -> None:
    page = "A page.\n\n```python\nx = 1\n```\n\n```python\nprint(x + 1)\n```\n\n```text\n{}\n```\n"
    blocks.run(page.format("2"), "page.md")
    with pytest.raises(AssertionError, match=r"page\.md:8 printed:\n2"):
        blocks.run(page.format("3"), "page.md")
