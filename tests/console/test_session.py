"""Who is signed in, and what of one token is left for the next: nothing."""

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, Route, expect

from cove.client import Client
from tests.console.conftest import Console, console, cut
from tests.support.suite import Suite

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.long]

TRIED = re.compile(r"/workspaces\?page_size=1$")
WATCH = re.compile(r"/workspaces:watch")


async def kept(page: Page) -> list[str]:
    """Names of what is in the storage of the tab."""
    return sorted(await page.evaluate("Object.keys(sessionStorage)"))


async def enter(page: Page, token: str) -> None:
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Sign in").click()


async def test_the_next_one_sees_nothing_of_the_former(
    suite: Suite, at: Console, repository: Path
) -> None:
    page = at.page
    await page.keyboard.press("n")
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Repository").fill(f"file://{repository}")
    await dialog.get_by_label("Name").fill("former")
    await dialog.get_by_role("button", name="Create").click()
    await expect(page.locator(".about .state")).to_have_text("ready")
    await page.keyboard.press("Escape")
    row = page.get_by_role("row").filter(has_text="former")
    await page.get_by_role("searchbox").fill("former")
    await page.get_by_label("Deleted").check()
    await expect(row).to_be_visible()
    await row.get_by_role("link").click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Token")).to_be_focused()
    assert await kept(page) == []
    assert page.url.endswith("#/")
    assert await page.title() == "Cove"

    # Before anything was told of what the token reaches.
    told = asyncio.Event()

    async def hold(route: Route) -> None:
        await told.wait()
        await route.continue_()

    await page.route(WATCH, hold)
    await enter(page, suite.token)
    await expect(page.get_by_role("grid")).to_be_visible()
    await expect(page.get_by_role("searchbox")).to_have_value("")
    await expect(page.get_by_label("Deleted")).not_to_be_checked()
    await expect(row).to_have_count(0)
    told.set()
    await expect(row).to_be_visible()


async def test_a_token_is_kept_once_it_was_let_in(
    suite: Suite, browser: Browser, shots: Path
) -> None:
    async with console(browser, suite.http) as at:
        page = at.page
        at.expected.append("net::ERR_FAILED")
        await at.open()
        await enter(page, "tök")
        await expect(page.get_by_role("alert")).to_contain_text("this is no token")
        await page.route(TRIED, cut)
        await enter(page, suite.token)
        await expect(page.get_by_role("alert")).to_contain_text("the gateway does not answer")
        assert await kept(page) == []
        await page.unroute(TRIED)
        await at.sign_in(suite.token)
        assert await kept(page) == ["cove.token"]

        await page.route(TRIED, cut)
        await page.reload()
        await expect(page.get_by_role("alert")).to_contain_text("the gateway does not answer")
        await page.screenshot(path=shots / "return.png")
        await page.get_by_role("button", name="Try again").click()
        await expect(page.get_by_role("button", name="Try again")).to_be_enabled()
        await page.unroute(TRIED)
        await page.get_by_role("button", name="Try again").click()
        await expect(page.get_by_role("grid")).to_be_visible()

        await page.route(TRIED, cut)
        await page.reload()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Token")).to_be_focused()
        assert await kept(page) == []


async def test_what_is_not_known_is_not_told(
    suite: Suite, browser: Browser, client: Client, repository: Path, shots: Path
) -> None:
    await client.workspaces.create(repository, id="known")
    async with console(browser, suite.http) as at:
        page = at.page
        at.expected.append("net::ERR_FAILED")
        await page.route(WATCH, cut)
        await at.open()
        await enter(page, suite.token)
        note = page.get_by_text("Not up to date: the gateway does not answer. Trying again.")
        for place, heading in (
            ("#/", "Workspaces"),
            ("#/w/known/commands", "known"),
            ("#/tree", "Forks"),
        ):
            await page.evaluate("(hash) => { location.hash = hash }", place)
            await expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
            await expect(note).to_be_visible()
            await expect(page.get_by_text(re.compile("There is no|No workspace"))).to_have_count(0)
            await page.screenshot(path=shots / f"unknown-{heading}.png")
        await page.unroute(WATCH)
        await page.evaluate("() => { location.hash = '#/w/known/commands' }")
        await expect(page.locator(".about .state")).to_have_text("ready")
        await expect(note).to_have_count(0)
        await page.evaluate("() => { location.hash = '#/w/unknown/commands' }")
        await expect(page.get_by_text("There is no workspace “unknown”.")).to_be_visible()


async def test_who_signs_in_again_is_where_they_were(
    suite: Suite, browser: Browser, client: Client, repository: Path
) -> None:
    await client.workspaces.create(repository, id="place")
    token = await client.tokens.create("writer", ttl=3600)
    async with console(browser, suite.http) as at:
        page = at.page
        at.expected.append("401")
        await at.open()
        await at.sign_in(token.secret)
        await at.open("#/w/place/files/README.md")
        text = page.get_by_label("Content of README.md")
        await expect(text).to_have_value("# App\n\nhello\n")
        await client.tokens.revoke(token.token.name)
        await expect(page.get_by_label("Token")).to_be_visible()
        await expect(page.get_by_role("alert")).to_contain_text("UNAUTHENTICATED")
        assert page.url.endswith("#/w/place/files/README.md")
        await at.sign_in(suite.token)
        await expect(text).to_have_value("# App\n\nhello\n")
        assert page.url.endswith("#/w/place/files/README.md")
        await page.go_back()
        await expect(page.get_by_role("grid")).to_be_visible()
        await page.go_forward()
        await expect(text).to_be_visible()

        at.expected.append("net::ERR_FAILED")
        await page.route(TRIED, cut)
        await page.reload()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Token")).to_be_focused()
        assert page.url.endswith("#/")
