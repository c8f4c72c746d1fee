"""The commands of a workspace, of which a list has only a part."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Route, expect

from cove.client import Client
from tests.console.conftest import Console, cut

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.long]


async def in_pages_of_two(at: Console) -> None:
    """Have the server answer lists of executions so: they come in the order of their ids."""

    async def ask(route: Route) -> None:
        await route.continue_(url=re.sub(r"page_size=\d+", "page_size=2", route.request.url))

    await at.page.route(re.compile(r"/executions\?.*page_size="), ask)


async def test_a_command_on_a_later_page_is_shown(
    at: Console, client: Client, repository: Path
) -> None:
    page = at.page
    await in_pages_of_two(at)
    workspace = await client.workspaces.create(repository, id="pages")
    for number in range(5):
        await workspace.execute("echo", f"old {number}", id=f"a{number}")
    await workspace.execute("echo", "latest", id="zz")
    await at.open("#/w/pages/commands")
    items = page.locator(".items li")
    await expect(items).to_have_count(6)
    await expect(items.first).to_contain_text("echo latest")
    await expect(page.locator(".log .stdout")).to_have_text("latest\n")

    await workspace.execute("echo", "later still", id="zzz")
    await expect(items.first).to_contain_text("echo later still")

    await page.keyboard.press("r")
    await page.keyboard.type("echo mine")
    await page.keyboard.press("Enter")
    await expect(page.locator(".log .stdout")).to_have_text("mine\n")
    await expect(items.first).to_contain_text("echo mine")
    await expect(items.first).to_contain_text("exit 0")
    await expect(items).to_have_count(8)


async def test_a_command_is_looked_up_by_its_name(
    at: Console, client: Client, repository: Path
) -> None:
    page = at.page
    workspace = await client.workspaces.create(repository, id="by-name")
    await workspace.execute("echo", "found", id="one")
    await page.route(re.compile(r"/executions\?.*page_size="), cut)
    at.expected += ["net::ERR_FAILED", "404"]
    await at.open("#/w/by-name/commands/one")
    await expect(page.locator(".log .stdout")).to_have_text("found\n")
    await at.open("#/w/by-name/commands/none")
    await expect(page.get_by_text("There is no such command.")).to_be_visible()


async def test_output_that_cannot_be_read_is_not_said_to_go_on(
    at: Console, client: Client, repository: Path
) -> None:
    page = at.page
    workspace = await client.workspaces.create(repository, id="no-output")
    execution = await workspace.start("sh", "-c", "echo begun; sleep 600", id="one")

    async def of_none(route: Route) -> None:
        await route.continue_(url=route.request.url.replace("/one/", "/none/"))

    await page.route(re.compile("/executions/one/output"), of_none)
    at.expected.append("404")
    await at.open("#/w/no-output/commands/one")
    await expect(page.get_by_role("alert")).to_contain_text("EXECUTION_NOT_FOUND")
    await expect(page.locator(".output .state")).to_have_text("running")
    await expect(page.get_by_text("Going on from there")).to_have_count(0)
    await execution.delete(force=True)


async def test_of_very_many_the_latest_are_shown(
    at: Console, client: Client, repository: Path
) -> None:
    page = at.page
    await in_pages_of_two(at)  # So it reads twenty of them.
    workspace = await client.workspaces.create(repository, id="many")
    for number in range(20):
        await workspace.execute("true", id=f"a{number:02}")
    await workspace.execute("echo", "latest", id="zz")
    await at.open("#/w/many/commands")
    items = page.locator(".items li")
    await expect(items).to_have_count(20)
    await expect(items.first).to_contain_text("echo latest")
    await expect(
        page.get_by_text("There are more than these 20, all of them older.")
    ).to_be_visible()
