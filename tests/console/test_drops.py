"""Connections that break lose no byte of output, no key, and no change of the list."""

import hashlib
import re
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, expect

from cove.client import Client
from tests.console.conftest import console
from tests.console.cutting import cutting
from tests.support.suite import Suite

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.long]

SIZE: Final = 4 << 20
EACH: Final = 1 << 20
NUMBERED: Final = f"seq -w 0 99999999 | head -c {SIZE}"
# What a browser itself logs of a connection that broke.
BROKEN: Final = ["net::ERR_", "WebSocket connection to"]


def expected() -> bytes:
    """What NUMBERED prints."""
    return b"".join(b"%08d\n" % number for number in range(SIZE // 9 + 1))[:SIZE]


@pytest.mark.timeout(400)
async def test_four_mebibytes_over_connections_of_one(
    suite: Suite, browser: Browser, client: Client, repository: Path
) -> None:
    await client.workspaces.create(repository, id="drops")
    async with (
        cutting(suite.http) as proxy,
        console(browser, proxy.address, viewport={"width": 900, "height": 600}) as at,
    ):
        at.expected += BROKEN
        await at.open("#/w/drops/commands")
        await at.sign_in(suite.token)
        proxy.limit = EACH
        await at.page.get_by_label("Command", exact=True).fill(f"sleep 1; {NUMBERED}")
        await at.page.keyboard.press("Enter")
        count = at.page.locator(".output .count")
        await expect(count).to_have_attribute("data-ended", "yes", timeout=150_000)
        await expect(count).to_have_attribute("data-to", str(SIZE))
        assert int(await count.get_attribute("data-breaks") or 0) >= SIZE // EACH
        shown = await at.page.locator(".log").text_content()
        assert shown
        assert len(shown) >= 512 << 10
        assert expected().endswith(shown.encode())
        async with at.page.expect_download(timeout=150_000) as downloading:
            await at.page.get_by_role("button", name="Download").click()
        saved = Path(await (await downloading.value).path()).read_bytes()
        assert hashlib.sha256(saved).digest() == hashlib.sha256(expected()).digest()


async def test_a_terminal_comes_back_with_every_key(
    suite: Suite, browser: Browser, client: Client, repository: Path
) -> None:
    workspace = await client.workspaces.create(repository, id="keys")
    async with cutting(suite.http) as proxy, console(browser, proxy.address) as at:
        at.expected += BROKEN
        page = at.page
        await at.open("#/w/keys/terminal")
        await at.sign_in(suite.token)
        await page.get_by_role("button", name="New terminal").click()
        await page.locator("[data-terminal=attached]").wait_for()
        await page.keyboard.type("echo be''gun; cat > typed.txt\n")
        await expect(page.locator(".xterm-rows")).to_contain_text("begun")
        typed = ""
        for number in range(6):
            line = f"line {number} of what was typed\n"
            await page.keyboard.type(line[:9])
            proxy.cut()
            await page.keyboard.type(line[9:])
            typed += line
        await page.keyboard.press("Control+d")
        await page.keyboard.type("stat -c %s typed.txt\n")
        await expect(page.locator(".xterm-rows")).to_contain_text(re.compile(rf"{len(typed)}"))
        assert (await workspace.read("typed.txt")).decode() == typed
        assert proxy.cuts >= 6


async def test_the_list_is_right_again_after_a_break(
    suite: Suite, browser: Browser, client: Client, repository: Path
) -> None:
    async with cutting(suite.http) as proxy, console(browser, proxy.address) as at:
        at.expected += BROKEN
        await at.open()
        await at.sign_in(suite.token)
        rows = at.page.get_by_role("row")
        for number in range(3):
            proxy.cut()
            await client.workspaces.create(id=f"after-{number}")
            await expect(rows.filter(has_text=f"after-{number}")).to_be_visible()
        for number in range(3):
            proxy.cut()
            await client.workspaces.named(f"after-{number}").delete(force=True)
            await expect(rows.filter(has_text=f"after-{number}")).to_have_count(0)
        await expect(at.page.get_by_text("live", exact=True)).to_be_visible()
