"""A watch: one unbroken stream of changes over any number of drops, and over lost history."""

import asyncio
from contextlib import aclosing

import grpc
import pytest

from cove import status
from cove.client import Client
from cove.errors.v1.errors_pb2 import ErrorReason
from cove.watch import Change, Delete, Put, SnapshotEnd
from tests.sdk.double import Gateway, broken_off, made, serving, told


async def take(cove: Client, count: int, from_revision: int = 0) -> list[str]:
    """The first changes, as words."""
    async with asyncio.timeout(30), aclosing(cove.workspaces.watch(from_revision)) as changes:
        return [word(await anext(changes)) for _ in range(count)]


def word(change: Change) -> str:
    match change:
        case Put():
            return f"put {change.workspace.uid} {change.revision}"
        case Delete():
            return f"delete {change.uid} {change.revision}"
        case SnapshotEnd():
            return f"end {change.revision}"


async def test_a_watch_survives_a_drop_after_each_change(cove: Client, gateway: Gateway) -> None:
    gateway.history, gateway.compacted = ["a"] * 30, 7
    gateway.later = [broken_off] * 30
    assert await take(cove, 30, 7) == [f"put a {revision}" for revision in range(8, 38)]
    assert [each.from_revision for each in gateway.requests] == list(range(7, 37))


async def test_what_is_gone_is_told_though_its_history_is_lost(address: str) -> None:
    gateway = made()
    gateway.present, gateway.history = {"a", "b"}, ["a", "b"]
    async with (
        asyncio.timeout(30),
        Client(address) as cove,
        aclosing(cove.workspaces.watch()) as changes,
    ):
        async with serving(gateway, address):
            seen = [word(await anext(changes)) for _ in range(3)]
        assert seen == ["put a 0", "put b 0", "end 2"]
        gateway.present, gateway.history, gateway.compacted = {"b", "c"}, [], 50
        async with serving(gateway, address):
            seen = [word(await anext(changes)) for _ in range(4)]
    assert seen == ["put b 0", "put c 0", "delete a 0", "end 50"]
    assert [each.from_revision for each in gateway.requests] == [0, 2, 0]


async def test_a_revision_of_long_ago_begins_with_a_snapshot(
    cove: Client, gateway: Gateway
) -> None:
    gateway.present, gateway.compacted = {"a"}, 50
    assert await take(cove, 2, 3) == ["put a 0", "end 50"]


async def test_a_snapshot_that_breaks_off_comes_again_as_a_whole(
    cove: Client, gateway: Gateway
) -> None:
    gateway.present, gateway.later = {"a", "b"}, [broken_off]
    assert await take(cove, 4) == ["put a 0", "put a 0", "put b 0", "end 0"]


async def test_a_reader_that_was_too_slow_goes_on_where_it_was(
    cove: Client, gateway: Gateway
) -> None:
    reason = ErrorReason.ERROR_REASON_WATCHER_TOO_SLOW
    too_slow = told(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
    gateway.history, gateway.compacted, gateway.later = ["a", "b"], 7, [too_slow]
    assert await take(cove, 2, 7) == ["put a 8", "put b 9"]
    gateway.failures = [too_slow]  # It saw nothing: so it would be for ever.
    with pytest.raises(status.ResourceExhausted):
        await take(cove, 1, 7)


async def test_a_gateway_that_stays_away_ends_the_watch(address: str) -> None:
    gateway = made()
    async with (
        Client(address, patience=0.3) as client,
        aclosing(client.workspaces.watch()) as changes,
    ):
        async with serving(gateway, address):
            assert word(await anext(changes)) == "end 0"
        with pytest.raises(status.Unavailable):
            await anext(changes)
