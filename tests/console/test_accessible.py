"""Every page by axe-core's rules for WCAG 2 A and AA, in both colour schemes; and its size."""

import gzip
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Page

from cove.client import Client
from tests.console.conftest import ROOT, Console

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.long]

AXE: Final = ROOT / "console" / "node_modules" / "axe-core" / "axe.min.js"
RULES: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LIGHT: Final = 200 << 10
"""Bytes of all that a browser may load, packed."""


async def faults(page: Page) -> list[str]:
    """What axe-core says of the page as it is."""
    run = "(rules) => axe.run(document, {runOnly: rules, resultTypes: ['violations']})"
    result: dict[str, Any] = await page.evaluate(run, RULES)
    return [
        f"{each['id']}: {each['help']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for each in result["violations"]
        for node in each["nodes"]
    ]


async def test_no_page_breaks_a_rule(at: Console, client: Client, repository: Path) -> None:
    page = at.page
    workspace = await client.workspaces.create(repository, id="axe")
    script = "echo out; echo err >&2; echo 1 >> README.md; rm -r src"
    await workspace.execute("sh", "-c", script)
    await workspace.fork(id="axe-fork")
    await page.evaluate(AXE.read_text())
    found = []
    for place, shown in (
        ("#/", ".row [role=gridcell]"),
        ("#/tree", ".tree li li"),
        ("#/w/axe/commands", ".log .stderr"),
        ("#/w/axe/files/README.md", ".file textarea"),
        ("#/w/axe/changes", ".diff .removed"),
        ("#/w/axe/usage", ".plot"),
        ("#/w/axe/forks", ".tree li li"),
        ("#/w/axe/terminal", ".terminals"),
        ("#/w/nothing/commands", ".empty"),
    ):
        await page.evaluate("(hash) => { location.hash = hash }", place)
        await page.locator(shown).first.wait_for()
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            found += [f"{place} {scheme}: {each}" for each in await faults(page)]
    await page.keyboard.press("Escape")
    await page.get_by_role("grid").wait_for()
    for key in ("?", "n", "d"):
        await page.keyboard.press(key)
        await page.get_by_role("dialog").wait_for()
        found += [f"dialog {key}: {each}" for each in await faults(page)]
        await page.keyboard.press("Escape")
    await page.evaluate("() => { location.hash = '#/w/axe/files/README.md' }")
    await page.get_by_label("Content of README.md").fill("edited")
    await page.get_by_role("button", name="Sign out").click()
    dialog = page.get_by_role("dialog", name="Leave README.md without saving?")
    await dialog.wait_for()
    found += [f"dialog Leave: {each}" for each in await faults(page)]
    await dialog.get_by_role("button", name="Leave").click()
    await page.get_by_label("Token").wait_for()
    found += [f"sign in: {each}" for each in await faults(page)]
    assert found == []


async def test_it_is_light(built: Path) -> None:
    sizes = {
        each.name: len(gzip.compress(each.read_bytes()))
        for each in built.rglob("*")
        if each.suffix in {".js", ".css", ".html", ".svg"}
    }
    assert sum(sizes.values()) <= LIGHT
    first = sum(size for name, size in sizes.items() if not name.startswith("terminal"))
    assert first <= LIGHT // 4  # The terminal is loaded where there is one.
    for each in built.rglob("*.js"):
        assert "//# sourceMappingURL" not in each.read_text()
