"""Files in the console: nothing that was edited or is there goes without a word."""

import re
from pathlib import Path

import pytest
from playwright.async_api import FilePayload, Locator, Page, expect

from cove.client import Client
from tests.console.conftest import Console

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.long]

LARGE = 8 << 20


def named(name: str, content: bytes) -> FilePayload:
    return FilePayload(name=name, mimeType="application/octet-stream", buffer=content)


def link(page: Page, name: str) -> Locator:
    return page.get_by_role("link", name=re.compile(re.escape(name)))


async def test_all_that_were_chosen_are_uploaded_and_none_over_another(
    at: Console, client: Client, repository: Path, shots: Path
) -> None:
    page = at.page
    workspace = await client.workspaces.create(repository, id="uploads")
    await at.open("#/w/uploads/files")
    field = page.locator("input[type=file]")
    await field.set_input_files([named(f"{each}.txt", each.encode()) for each in "abc"])
    await expect(link(page, "c.txt")).to_be_visible()
    assert [await workspace.read(f"{each}.txt") for each in "abc"] == [b"a", b"b", b"c"]

    at.expected.append("412")
    again = [named("a.txt", b"A" * LARGE), named("b.txt", b"B"), named("d.txt", b"D")]
    await field.set_input_files(again)
    dialog = page.get_by_role("dialog", name="Overwrite what is there?")
    await expect(dialog.get_by_role("listitem")).to_have_text(["a.txt", "b.txt"])
    await page.screenshot(path=shots / "overwrite.png")
    await expect(link(page, "d.txt")).to_be_visible()
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_have_count(0)
    assert [await workspace.read(f"{each}.txt") for each in "abd"] == [b"a", b"b", b"D"]

    await field.set_input_files(again)
    await expect(dialog.get_by_role("listitem")).to_have_count(3)
    await dialog.get_by_role("button", name="Overwrite").click()
    await expect(dialog).to_have_count(0)
    assert await workspace.read("a.txt") == b"A" * LARGE
    assert await workspace.read("b.txt") == b"B"


async def test_lines_end_as_they_did(at: Console, client: Client, repository: Path) -> None:
    page = at.page
    workspace = await client.workspaces.create(repository, id="endings")
    await workspace.write("dos.txt", b"one\r\ntwo\r\n")
    mixed = b"one\r\ntwo\nthree\r"
    await workspace.write("mixed.txt", mixed)
    await at.open("#/w/endings/files/dos.txt")
    text = page.get_by_label("Content of dos.txt")
    await expect(text).to_have_value("one\ntwo\n")
    await expect(page.get_by_role("button", name="Save")).to_be_disabled()
    await text.fill("one\nzwei\nthree\n")
    await page.keyboard.press("Control+s")
    await expect(page.locator(".file .dim").first).to_have_text("18 B")
    assert await workspace.read("dos.txt") == b"one\r\nzwei\r\nthree\r\n"
    await text.fill("one\n")
    await page.keyboard.press("Control+s")
    await expect(page.locator(".file .dim").first).to_have_text("5 B")
    assert await workspace.read("dos.txt") == b"one\r\n"

    await link(page, "mixed.txt").click()
    text = page.get_by_label("Content of mixed.txt")
    await expect(text).not_to_be_editable()
    await expect(page.get_by_text("it can only be read")).to_be_visible()
    await expect(page.get_by_role("button", name="Save")).to_have_count(0)
    assert await workspace.read("mixed.txt") == mixed


async def test_what_was_edited_is_not_left_without_asking(
    at: Console, client: Client, repository: Path, shots: Path
) -> None:
    page = at.page
    workspace = await client.workspaces.create(repository, id="edits")
    await workspace.write("other.txt", b"other\n")
    await at.open("#/w/edits/files/README.md")
    text = page.get_by_label("Content of README.md")
    await expect(text).to_have_value("# App\n\nhello\n")
    mine = "# Mine\n"
    await text.fill(mine)

    await page.get_by_role("button", name="Refresh").click()
    await page.locator("input[type=file]").set_input_files(named("up.txt", b"up"))
    await expect(link(page, "up.txt")).to_be_visible()
    await expect(text).to_have_value(mine)

    dialog = page.get_by_role("dialog", name="Leave README.md without saving?")
    away = (
        lambda: link(page, "other.txt").click(),
        lambda: link(page, "changes").click(),
        lambda: page.keyboard.press("Escape"),
        lambda: page.evaluate("() => history.back()"),
        lambda: page.get_by_role("button", name="Sign out").click(),
    )
    for leave in away:
        await leave()
        await expect(dialog).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)
        assert page.url.endswith("#/w/edits/files/README.md")
        await expect(text).to_have_value(mine)
        await page.locator("body").click(position={"x": 1, "y": 1})  # Out of the field.

    await link(page, "other.txt").click()
    await page.screenshot(path=shots / "leave.png")
    await dialog.get_by_role("button", name="Leave").click()
    other = page.get_by_label("Content of other.txt")
    await expect(other).to_have_value("other\n")
    assert await workspace.read("README.md") == b"# App\n\nhello\n"

    await other.fill("saved\n")
    await page.keyboard.press("Control+s")
    await expect(page.get_by_role("button", name="Rename")).to_be_enabled()  # It is saved.
    await link(page, "README.md").click()
    await expect(text).to_have_value("# App\n\nhello\n")
    await workspace.write("README.md", b"theirs\n")
    await page.get_by_role("button", name="Refresh").click()
    await expect(text).to_have_value("theirs\n")
