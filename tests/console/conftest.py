"""The web console in a real browser, on a suite as `cove up --console` starts it.

A page that logs an error, throws, or breaks its own policy fails its test.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, Route, async_playwright, expect

from cove.client import Client
from tests.support.repository import make_repository
from tests.support.suite import Suite, running_suite

ROOT: Final = Path(__file__).parent.parent.parent
BUILT: Final = ROOT / ".build" / "console"
BROWSER: Final = shutil.which("chromium")
ARGUMENTS: Final = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
)

_BUILD: Final = 300.0
expect.set_options(timeout=20_000)

_PATIENCE: Final = 20_000
"""Milliseconds in which the page must show what a test waits for."""

_MISSING: Final = {
    "chromium": "apt-get install chromium",
    "npm": "Node.js 20.19 or newer with npm",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [f"{name} ({what})" for name, what in _MISSING.items() if not shutil.which(name)]
    if missing:
        skip = pytest.mark.skip(reason=f"not found: {', '.join(missing)}")
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def built() -> Path:
    """What `make console` makes, made anew where a source is newer."""
    (ROOT / ".build").mkdir(exist_ok=True)
    with (ROOT / ".build" / "console.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        index = BUILT / "index.html"
        sources = [ROOT / "console" / name for name in ("package-lock.json", "index.html")]
        sources += (ROOT / "console" / "src").rglob("*")
        newest = max(each.stat().st_mtime for each in sources)
        if not index.exists() or index.stat().st_mtime < newest:
            done = subprocess.run(
                ["make", "console"], cwd=ROOT, capture_output=True, text=True, timeout=_BUILD
            )
            assert done.returncode == 0, done.stdout + done.stderr
    return BUILT


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def suite(built: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    folder = tmp_path_factory.mktemp("suite")
    async with running_suite(folder, arguments=["--console"]) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="package")
async def client(suite: Suite) -> AsyncIterator[Client]:
    async with suite.client() as made:
        yield made


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield found
        await found.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """With one commit on `main`; that can be pushed to."""
    folder = tmp_path / "app"
    make_repository(
        folder,
        {
            "README.md": "# App\n\nhello\n",
            "src/main.py": "".join(f"print({number})\n" for number in range(40)),
            "src/deep/notes.txt": "one\ntwo\nthree\n",
        },
    )
    return folder


@dataclass
class Console:
    """A page, signed in, and what it complained of."""

    page: Page
    address: str
    expected: list[str] = field(default_factory=list)
    """Parts of complaints that a test provokes; the browser itself logs each answer of 4xx."""

    complaints: list[str] = field(default_factory=list)

    async def open(self, place: str = "#/") -> None:
        await self.page.goto(f"http://{self.address}/console/{place}")

    async def sign_in(self, token: str) -> None:
        await self.page.get_by_label("Token").fill(token)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.get_by_text("live", exact=True).wait_for()

    def unexpected(self) -> list[str]:
        return [each for each in self.complaints if not any(part in each for part in self.expected)]


@asynccontextmanager
async def console(browser: Browser, address: str, **options: object) -> AsyncIterator[Console]:
    """A page of its own, that nobody is signed in to. Fails for what it complains of."""
    context = await browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(_PATIENCE)
    page = await context.new_page()
    made = Console(page, address)

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            made.complaints.append(f"{message.type}: {message.text}")

    page.on("console", said)
    page.on("pageerror", lambda error: made.complaints.append(f"thrown: {error}"))
    try:
        yield made
    finally:
        if shots := os.environ.get("COVE_CONSOLE_SHOTS"):
            await page.screenshot(path=Path(shots) / f"last-{len(list(Path(shots).iterdir()))}.png")
        await context.close()
    assert made.unexpected() == []


async def cut(route: Route) -> None:
    """What becomes of a call that nobody answers; the browser logs net::ERR_FAILED."""
    await route.abort()


@pytest_asyncio.fixture(loop_scope="package")
async def at(suite: Suite, browser: Browser) -> AsyncIterator[Console]:
    """The list, signed in."""
    async with console(browser, suite.http) as made:
        await made.open()
        await made.sign_in(suite.token)
        yield made


@pytest.fixture
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go, which nobody compares: they are for people. COVE_CONSOLE_SHOTS names
    a folder, where the last sight of each page is left, too."""
    chosen = os.environ.get("COVE_CONSOLE_SHOTS")
    return Path(chosen) if chosen else tmp_path_factory.getbasetemp()
