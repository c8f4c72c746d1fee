"""The list of workspaces, with a thousand of them."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from cove.client import Client
from tests.console.conftest import Console, console
from tests.console.many import register
from tests.support.suite import Suite, running_suite

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.long]

MANY: Final = 1000


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def suite(built: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    folder = tmp_path_factory.mktemp("many")
    async with running_suite(folder, arguments=["--console"]) as running:
        await register(running, MANY)
        yield running


async def chosen(page: Page, name: str) -> None:
    """Wait until the row of this name is the current one, and in sight."""
    row = page.locator("[role=row][aria-selected=true]")
    await expect(row.get_by_role("link")).to_have_text(name)
    await expect(row).to_be_in_viewport()


async def test_a_thousand_are_listed_and_only_what_is_seen_is_made(
    at: Console, shots: Path
) -> None:
    page = at.page
    await expect(page.locator(".count")).to_have_text(f"{MANY} in all")
    assert 15 < await page.get_by_role("row").count() < 100
    await expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", str(MANY + 1))
    await page.screenshot(path=shots / "list-light.png")
    await page.emulate_media(color_scheme="dark")
    await page.screenshot(path=shots / "list-dark.png")
    await page.set_viewport_size({"width": 390, "height": 800})
    await page.screenshot(path=shots / "list-narrow.png")


async def test_keys_move_through_all_of_them(at: Console) -> None:
    page = at.page
    await chosen(page, "many-0000")
    for key, name in (
        ("j", "many-0001"),
        ("ArrowDown", "many-0002"),
        ("k", "many-0001"),
        ("G", "many-0999"),
        ("j", "many-0999"),
        ("PageUp", "many-0984"),
        ("g", "many-0000"),
        ("End", "many-0999"),
        ("Home", "many-0000"),
        ("PageDown", "many-0015"),
    ):
        await page.keyboard.press(key)
        await chosen(page, name)
    await page.keyboard.press("/")
    await page.keyboard.type("0500")
    await expect(page.locator(".count")).to_have_text(f"1 of {MANY}")
    await page.keyboard.press("Enter")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="many-0500")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("searchbox")).to_have_value("0500")
    await page.get_by_role("searchbox").fill("failed team=web")
    await expect(page.locator(".count")).to_have_text(f"84 of {MANY}")


async def test_who_reads_is_where_the_page_is(at: Console) -> None:
    page = at.page
    grid = page.get_by_role("grid")
    await expect(grid).to_be_focused()
    await expect(grid).to_have_attribute("aria-activedescendant", "row-0")
    await grid.evaluate("(grid) => { grid.scrollTop = 20000 }")
    await expect(page.locator("#row-0")).to_have_count(0)
    await expect(grid).not_to_have_attribute("aria-activedescendant", re.compile("row-"))
    await page.keyboard.press("j")
    await chosen(page, "many-0001")
    await expect(grid).to_have_attribute("aria-activedescendant", "row-1")

    await page.keyboard.press("Enter")
    await expect(page.get_by_role("main")).to_be_focused()
    await expect(page.locator("[aria-live=polite].hidden")).to_have_text("many-0001")
    await page.keyboard.press("Escape")
    await expect(grid).to_be_focused()
    await page.get_by_role("link", name="Forks").click()
    await expect(page.get_by_role("main")).to_be_focused()
    await expect(page.locator("[aria-live=polite].hidden")).to_have_text("Forks")


async def test_keys_of_one_character_can_be_turned_off(at: Console) -> None:
    page = at.page
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    await page.get_by_label("Keys of one character").uncheck()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("j")
    await page.keyboard.press("n")
    await page.keyboard.press("ArrowDown")
    await chosen(page, "many-0001")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_changes_come_by_themselves(at: Console, client: Client, repository: Path) -> None:
    page = at.page
    await page.get_by_role("searchbox").fill("live-")
    workspace = await client.workspaces.create(repository, id="live-one")
    row = page.get_by_role("row").filter(has_text="live-one")
    await expect(row.locator(".state")).to_have_text("ready")
    await workspace.suspend()
    await expect(row.locator(".state")).to_have_text("suspended")
    await workspace.resume()
    await workspace.execute("sh", "-c", "echo kept > kept.txt")
    await expect(row.locator(".state")).to_have_text("ready")

    await page.keyboard.press("Enter")
    await page.keyboard.press("d")
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(row).to_have_count(0)
    await page.get_by_label("Deleted").check()
    await expect(row.locator(".state")).to_have_text("deleted")
    await page.keyboard.press("Escape")
    await page.get_by_role("grid").focus()
    await page.keyboard.press("u")
    await expect(row.locator(".state")).to_have_text("ready")
    assert (await workspace.read("kept.txt")) == b"kept\n"
    await workspace.delete(force=True)
    await expect(row).to_have_count(0)


async def test_a_refusal_says_why_and_what_to_do(suite: Suite, browser: Browser) -> None:
    async with console(browser, suite.http) as at:
        at.expected.append("401")
        page = at.page
        await at.open()
        await page.get_by_label("Token").fill("not-the-token")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("no valid token")
        await expect(page.get_by_role("alert")).to_contain_text("UNAUTHENTICATED")
        await at.sign_in(suite.token)
        assert suite.token not in page.url
        assert await page.context.cookies() == []
        assert await page.evaluate("Object.values(localStorage).length") == 0
        await page.reload()
        await expect(page.get_by_role("grid")).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Token")).to_be_focused()
        assert await page.evaluate("sessionStorage.getItem('cove.token')") is None
        await page.reload()
        await expect(page.get_by_label("Token")).to_be_visible()
        await at.sign_in(suite.token)

        at.expected.append("400")
        await page.keyboard.press("n")
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Name").fill("No Such!")
        await dialog.get_by_role("button", name="Create").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("INVALID_FIELD")
        await expect(dialog.get_by_role("alert")).to_contain_text("workspace_id")


async def test_a_gateway_that_asks_for_no_token(
    built: Path, browser: Browser, tmp_path: Path
) -> None:
    async with (
        running_suite(tmp_path, arguments=["--console", "--no-auth"]) as suite,
        console(browser, suite.http) as at,
    ):
        await at.open()
        await at.sign_in("")
        await expect(at.page.get_by_text("No workspace yet.")).to_be_visible()
