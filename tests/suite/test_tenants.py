"""Tenants side by side on one installation, and shares of workspaces."""

import json
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from cove import NotFound, PermissionDenied, Unauthenticated
from cove.client import Client
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

TENANTS: Final = ("acme", "other")
REQUEST: Final = "0f9619ff-8b86-4011-b42d-00cf4fc964ff"


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def tokens(suite: Suite) -> dict[str, str]:
    """Of an administrator of each tenant."""
    found = {}
    for tenant in TENANTS:
        async with Client(suite.grpc, suite.token, acting_for=tenant) as operator:
            found[tenant] = (await operator.tokens.create("admin", id="admin")).secret
    return found


async def test_two_tenants_have_the_same_ids_and_never_meet(
    suite: Suite, tokens: dict[str, str], repository: Path
) -> None:
    async with (
        Client(suite.grpc, tokens["acme"]) as acme,
        Client(suite.grpc, tokens["other"]) as other,
    ):
        made = {}
        for name, cove in (("acme", acme), ("other", other)):
            made[name] = await cove.workspaces.create(
                id="same",
                repository=f"file://{repository}",
                request_id=REQUEST,
            )
            await made[name].write("whose.txt", name)
        assert made["acme"].message.uid != made["other"].message.uid
        for name, workspace in made.items():
            assert workspace.message.creator == "token:admin"
            done = await workspace.execute("cat", "whose.txt")
            assert done.text == name
            await workspace.commit("Mine", author=("Ada", "ada@example.org"))
        assert [each.id async for each in other.workspaces.list()] == ["same"]
        folders = {each.name for each in (suite.state / "git" / "repositories").iterdir()}
        assert {"acme", "other"} <= folders
        await other.workspaces.named("same").delete(force=True)
        with pytest.raises(NotFound):
            await other.workspaces.get("same")
        assert (await acme.workspaces.named("same").execute("cat", "whose.txt")).text == "acme"
        await acme.workspaces.named("same").delete(force=True)
        quotas = [await each.tenant.quota() for each in (acme, other)]
        assert [(each.tenant, each.use.workspaces) for each in quotas] == [
            ("acme", 0),
            ("other", 0),
        ]


async def test_what_a_tenant_deleted_is_kept_for_it_and_purged(
    suite: Suite, tokens: dict[str, str]
) -> None:
    """What gateways do by themselves they do in the tenant of what they do it to."""
    async with Client(suite.grpc, tokens["acme"]) as acme:
        workspace = await acme.workspaces.create(id="kept")
        await workspace.write("unsaved", "work")
        await workspace.delete()
        restored = await acme.workspaces.undelete("kept")
        assert await restored.read("unsaved") == b"work"
        await restored.delete(force=True)


async def test_a_share_is_worked_in_and_looked_at(suite: Suite, tokens: dict[str, str]) -> None:
    async with Client(suite.grpc, tokens["acme"]) as acme:
        workspace = await acme.workspaces.create(id="shared")
        await acme.workspaces.create(id="private")
        reads = await acme.tokens.create("reader", workspace="shared")
        writes = await acme.tokens.create("writer", workspace="shared")
        async with Client(suite.grpc, writes.secret) as guest:
            shared = guest.workspaces.named("shared")
            assert (await shared.execute("sh", "-c", "echo hello | tee said")).text == "hello\n"
            execution = await shared.start("sleep", "100")
            with pytest.raises(PermissionDenied) as caught:
                await guest.workspaces.named("private").read("said")
            assert caught.value.reason == "ERROR_REASON_SHARE_LIMITED"
            assert "shared workspace" in caught.value.remedy
            for refused in (shared.delete(force=True), shared.suspend(), shared.update(ttl=60)):
                with pytest.raises(PermissionDenied):
                    await refused
            await execution.signal(9)
        async with Client(suite.grpc, reads.secret) as guest:
            shared = guest.workspaces.named("shared")
            assert await shared.read("said") == b"hello\n"
            with pytest.raises(PermissionDenied):
                await shared.write("said", "bye")
            with pytest.raises(PermissionDenied):
                [each async for each in guest.workspaces.list()]
        await workspace.delete(force=True)
        await acme.workspaces.named("private").delete(force=True)
        async with Client(suite.grpc, reads.secret) as guest:
            with pytest.raises((NotFound, Unauthenticated)):
                await guest.workspaces.named("shared").read("said")


async def test_cove_makes_lists_and_ends_them(suite: Suite) -> None:
    operator = ("--tenant", "acme")
    made = await suite.cove("token", "create", "--role", "reader", "--id", "ci", *operator)
    secret = made.text.strip()
    assert secret.startswith("cove_")
    assert "reader of the tenant acme" in made.errors
    listed = await suite.cove("token", "ls", *operator)
    assert [line.split()[:2] for line in listed.text.splitlines() if "ci" in line.split()] == [
        ["ci", "reader"]
    ]
    async with Client(suite.grpc, secret) as cove:
        assert [each async for each in cove.workspaces.list()] == []
    assert (await suite.cove("token", "revoke", "ci", *operator)).status == 0
    async with Client(suite.grpc, secret) as cove:
        with pytest.raises(Unauthenticated):
            await cove.workspaces.get("x")
    ended = await suite.cove("token", "ls", "--all", "--json", *operator)
    assert "ci" in {
        each["name"].removeprefix("tokens/") for each in json.loads(ended.text)["tokens"]
    }

    await suite.cove("create", "--id", "mine", *operator)
    shared = await suite.cove("share", "mine", "--ttl", "1h", "--json", *operator)
    told = json.loads(shared.text)
    assert (told["token"]["workspace"], told["token"]["role"]) == ("workspaces/mine", "ROLE_READER")
    await suite.cove("rm", "mine", "--force", *operator)
