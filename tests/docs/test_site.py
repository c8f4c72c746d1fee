"""The pages as a site: complete, without a warning, and without a word to any other host."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT

_LOADED: Final = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=\"?(https?://[^\s\">]+|//[^\s\">]+)"
)
_STYLED: Final = re.compile(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(built)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return built


def test_every_page_is_on_the_site(site: Path) -> None:
    written = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    renamed = {Path("decisions/README.md"): Path("decisions/index.md")}
    assert {renamed.get(path, path) for path in written} <= built


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    found = [
        (path.name, url)
        for kind, pattern in (("html", _LOADED), ("css", _STYLED))
        for path in site.rglob(f"*.{kind}")
        for url in pattern.findall(path.read_text())
    ]
    assert found == []


def test_no_link_between_pages_leads_off_the_site(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for link in re.findall(r'href="([^"#]+)', page.read_text()):
            if ":" not in link and not link.startswith("/"):
                assert (page.parent / link).resolve().exists(), f"{page.name}: {link}"
