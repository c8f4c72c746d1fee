"""A workspace in the console, from its making to its end."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, FilePayload, Page, expect

from cove.client import Client
from tests.console.conftest import Console, console
from tests.support.repository import git
from tests.support.suite import Suite

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.long]


async def tab(page: Page, name: str) -> None:
    await page.get_by_role("link", name=re.compile(name)).first.click()


async def test_from_a_repository_to_a_push(
    at: Console, client: Client, repository: Path, shots: Path
) -> None:
    page = at.page
    await page.keyboard.press("n")
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Repository").fill(f"file://{repository}")
    await dialog.get_by_label("Name").fill("flow")
    await page.screenshot(path=shots / "create.png")
    await dialog.get_by_role("button", name="Create").click()
    await expect(page.get_by_role("heading", name="flow")).to_be_visible()
    await expect(page.locator(".about .state")).to_have_text("ready")

    await page.keyboard.press("r")
    await page.keyboard.type("echo one; echo two >&2; echo changed >> README.md; seq 3 > new.txt")
    await page.keyboard.press("Enter")
    await expect(page.locator(".log .stdout")).to_have_text("one\n")
    await expect(page.locator(".log .stderr")).to_have_text("two\n")
    await expect(page.locator(".output .state")).to_have_text("exit 0")
    await page.screenshot(path=shots / "commands.png")

    await page.keyboard.press("Escape")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("grid")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="flow")).to_be_visible()
    await page.keyboard.press("4")
    added = page.locator(".diff .added")
    await expect(added.first).to_contain_text("changed")
    await expect(page.locator(".diff")).to_have_count(2)
    await page.screenshot(path=shots / "changes.png")
    await page.emulate_media(color_scheme="dark")
    await page.screenshot(path=shots / "changes-dark.png")
    await page.emulate_media(color_scheme="light")
    await page.keyboard.press("c")
    await page.keyboard.type("Add what is new")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".save [role=status]")).to_contain_text("Committed")
    await expect(page.get_by_text("Nothing differs.")).to_be_visible()
    await page.get_by_role("button", name="Push").click()
    await expect(page.locator(".save [role=status]")).to_have_text("Pushed to cove/flow")
    assert git(repository, "show", "cove/flow:new.txt") == "1\n2\n3\n"
    assert git(repository, "log", "-1", "--format=%s", "cove/flow") == "Add what is new\n"


async def test_files(at: Console, client: Client, repository: Path, shots: Path) -> None:
    page = at.page
    workspace = await client.workspaces.create(repository, id="files")
    await at.open("#/w/files/files")
    await page.get_by_text("src", exact=True).click()
    await page.get_by_role("link", name=re.compile("main.py")).click()
    text = page.get_by_label("Content of src/main.py")
    await expect(text).to_have_value(re.compile(r"print\(39\)"))
    await page.screenshot(path=shots / "files.png")
    await text.fill("print('mine')\n")
    await page.keyboard.press("Control+s")
    await expect(page.get_by_role("button", name="Save")).to_be_disabled()
    await expect(page.locator(".file .dim").first).to_have_text("14 B")
    assert (await workspace.read("src/main.py")) == b"print('mine')\n"

    at.expected.append("412")
    await workspace.write("src/main.py", b"print('theirs')\n")
    await text.fill("print('mine again')\n")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("Another one changed this file")
    await page.screenshot(path=shots / "conflict.png")
    assert (await workspace.read("src/main.py")) == b"print('theirs')\n"
    await page.get_by_role("button", name="Take theirs").click()
    await expect(text).to_have_value("print('theirs')\n")

    await page.locator("input[type=file]").set_input_files(
        FilePayload(name="up.bin", mimeType="application/octet-stream", buffer=bytes(range(256)))
    )
    await page.get_by_role("link", name=re.compile(r"up\.bin")).click()
    await expect(page.get_by_text("No text: Download has it.")).to_be_visible()
    assert (await workspace.read("up.bin")) == bytes(range(256))
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Download").click()
    assert Path(await (await downloading.value).path()).read_bytes() == bytes(range(256))
    await page.get_by_role("button", name="Delete").last.click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("link", name=re.compile(r"up\.bin"))).to_have_count(0)


async def test_a_terminal(at: Console, client: Client, repository: Path, shots: Path) -> None:
    page = at.page
    workspace = await client.workspaces.create(repository, id="terminal")
    await at.open("#/w/terminal/terminal")
    await page.get_by_role("button", name="New terminal").click()
    await page.locator("[data-terminal=attached]").wait_for()
    await page.keyboard.type(
        "stty size; echo typed > typed.txt; printf '\\033[38;2;255;99;71mcol''our\\033[0m\\n'\n"
    )
    await expect(page.locator(".xterm-rows")).to_contain_text("colour")
    await page.screenshot(path=shots / "terminal.png")
    assert (await workspace.read("typed.txt")) == b"typed\n"
    before = await page.locator(".xterm-rows").inner_text()
    await page.set_viewport_size({"width": 700, "height": 600})
    await page.keyboard.type("clear; stty size\n")
    await expect(page.locator(".xterm-rows")).not_to_contain_text("colour")
    await page.keyboard.type("exit\n")
    await page.locator("[data-terminal=ended]").wait_for()
    sizes = re.findall(r"^(\d+) (\d+)$", before, re.MULTILINE)
    assert sizes
    assert sizes[0] != ("24", "80")


async def test_forks_and_usage(at: Console, client: Client, repository: Path, shots: Path) -> None:
    page = at.page
    workspace = await client.workspaces.create(repository, id="parent")
    await workspace.start("sh", "-c", "while :; do head -c 1000000 /dev/zero > x; done")
    await at.open("#/w/parent/usage")
    await expect(page.locator(".plot")).to_have_count(4)
    await expect(page.get_by_role("img", name=re.compile("Processors: now [0-9]"))).to_be_visible()
    await page.wait_for_timeout(6000)
    await page.screenshot(path=shots / "usage.png")
    await page.keyboard.press("6")
    await page.get_by_role("button", name="Take one").click()
    await page.get_by_role("button", name="Fork", exact=True).click()
    await page.get_by_role("dialog").get_by_label("Name").fill("child")
    await page.get_by_role("dialog").get_by_role("button", name="Fork").click()
    await expect(page.get_by_role("heading", name="child", exact=True)).to_be_visible()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("grid")).to_be_visible()
    await page.keyboard.press("t")
    await expect(page.get_by_role("heading", name="Forks")).to_be_visible()
    forks = page.get_by_role("listitem").filter(has=page.get_by_role("link", name="parent"))
    await expect(forks.locator("li")).to_contain_text("child")
    await page.screenshot(path=shots / "tree.png")


async def test_a_share_is_signed_in_to_its_workspace(
    suite: Suite, browser: Browser, client: Client, repository: Path
) -> None:
    workspace = await client.workspaces.create(f"file://{repository}", id="shared")
    share = await client.tokens.create("writer", workspace="shared", ttl=3600)
    async with console(browser, suite.http) as at:
        at.expected.append("403")  # A share may not list.
        page = at.page
        await at.open("#/tree")
        await at.sign_in(share.secret)
        await expect(page.get_by_role("heading", name="shared")).to_be_visible()
        await expect(page.get_by_role("navigation", name="Pages")).to_have_count(0)
        await page.keyboard.press("r")
        await page.keyboard.type("echo one")
        await page.keyboard.press("Enter")
        await expect(page.locator(".log .stdout")).to_have_text("one\n")
        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        await page.goto(page.url.split("#")[0] + "#/w/another")
        await expect(page.get_by_role("heading", name="shared")).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("heading", name="shared")).to_be_visible()
        await workspace.suspend()
        await expect(page.locator(".about .state")).to_have_text("suspended")
        at.expected.append("401")
        await client.tokens.revoke(share.token.name)
        await expect(page.get_by_label("Token")).to_be_visible()
        await expect(page.get_by_role("alert")).to_contain_text("UNAUTHENTICATED")
