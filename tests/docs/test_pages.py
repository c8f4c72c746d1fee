"""What the pages tell a reader to type is typed, and what they say comes back does."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.docs import pages
from tests.docs.pages import PAGES, ROOT
from tests.docs.reader import reading

STARTS_ONE: Final = re.compile(r"^cove up\b", re.MULTILINE)


FIRST: Final = ("README.md", "docs/quickstart.md")
"""What a reader meets first is tried each time; the others are among the long suites."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _tried() -> list[object]:
    later = pytest.mark.long
    return [
        pytest.param(page, id=name(page), marks=() if name(page) in FIRST else later)
        for page in PAGES
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", _tried())
def test_a_reader_gets_what_the_page_says(page: Path) -> None:
    steps = pages.steps(page)
    if not steps:
        return
    starts_one = any(STARTS_ONE.search(step.text) for step in steps)
    with reading(suite_runs=not starts_one) as reader:
        for step in steps:
            reader.type(step)


def test_what_is_not_run_says_why() -> None:
    left_out = [
        f"{name(page)}:{each.line} {each.why}" for page in PAGES for each in pages.not_run(page)
    ]
    pytest.skip(f"{len(left_out)} blocks of the pages are not run: {'; '.join(left_out)}")
