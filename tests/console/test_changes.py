"""The changes of a workspace in the console: what was written is not lost without a word."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from cove.client import Client
from tests.console.conftest import Console

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.long]


async def test_a_message_is_not_left_without_asking(
    at: Console, client: Client, repository: Path, shots: Path
) -> None:
    page = at.page
    workspace = await client.workspaces.create(repository, id="message")
    await workspace.write("new.txt", b"new\n")
    await at.open("#/w/message/changes")
    field = page.get_by_label("Commit message")
    await field.fill("Say why")
    dialog = page.get_by_role("dialog", name="Leave without committing?")
    away = (
        lambda: page.get_by_role("link", name="files").click(),
        lambda: page.keyboard.press("1"),
        lambda: page.keyboard.press("Escape"),
        lambda: page.evaluate("() => history.back()"),
        lambda: page.get_by_role("button", name="Sign out").click(),
    )
    for leave in away:
        await page.locator("body").click(position={"x": 1, "y": 1})  # Out of the field.
        await leave()
        await expect(dialog).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)
        assert page.url.endswith("#/w/message/changes")
        await expect(field).to_have_value("Say why")
    await page.get_by_role("button", name="Refresh").click()
    await expect(field).to_have_value("Say why")

    await page.get_by_role("link", name="files").click()
    await page.screenshot(path=shots / "leave-message.png")
    await dialog.get_by_role("button", name="Leave").click()
    await expect(page.get_by_role("button", name="New file")).to_be_visible()
    await page.keyboard.press("4")
    await expect(field).to_have_value("")

    await field.fill("Add it")
    await page.get_by_role("button", name="Commit").click()
    await expect(page.locator(".save [role=status]")).to_contain_text("Committed")
    await page.keyboard.press("1")
    await expect(page.get_by_text("Nothing was run yet.")).to_be_visible()
    await expect(dialog).to_have_count(0)
