"""Holders that come and go, at one tool."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from servicekit import calls
from servicekit.calls import Fence
from servicekit.fencing import Fences, FencesTooNew, LeaseTaken
from tests.servicekit.failing import failure
from tests.servicekit.kit import Protos, running

UID: Final = "a234567a234567aa"
OTHER: Final = "b234567a234567aa"
DAY: Final = timedelta(days=1)


async def test_a_lower_token_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as fences:
        assert await acting(fences, 5) == "done"
        assert await acting(fences, 9) == "done"
        assert await acting(fences, 9) == "done"
        await refused(fences, 8)
    async with opened(tmp_path) as fences:
        await refused(fences, 8)
        assert await acting(fences, 9) == "done"


async def test_each_uid_has_a_fence_of_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as fences:
        await acting(fences, 9)
        assert await acting(fences, 5, of=OTHER, uid=OTHER) == "done"
        assert await acting(fences, 20, of=OTHER) == "done"  # Another's lease says nothing here.
        assert await acting(fences, 9) == "done"


async def test_who_shows_no_token_is_served(tmp_path: Path) -> None:
    async with opened(tmp_path) as fences:
        await acting(fences, 9)
        assert await fences.guard(UID, done) == "done"


async def test_what_an_earlier_holder_began_is_over_before_a_later_one_begins(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as fences:
        work = Work()
        earlier = asyncio.ensure_future(acting(fences, 5, work.do))
        await work.began.wait()
        later = asyncio.ensure_future(acting(fences, 9))
        await asyncio.wait_for(until_refused(fences, 5), 30)
        assert not later.done()
        work.go_on.set()
        assert await earlier == "done"
        assert await later == "done"


async def test_what_an_earlier_holder_began_is_broken_off_by_one_who_ends_it(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as fences:
        work = Work()
        earlier = asyncio.ensure_future(acting(fences, 5, work.do))
        await work.began.wait()
        assert await acting(fences, 9, ends=True) == "done"
        assert work.cleaned
        with pytest.raises(LeaseTaken):
            await earlier


async def test_a_caller_that_leaves_leaves_nothing_behind(tmp_path: Path) -> None:
    async with opened(tmp_path) as fences:
        work = Work()
        leaving = asyncio.ensure_future(acting(fences, 5, work.do))
        await work.began.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await acting(fences, 9) == "done"


async def test_of_many_at_once_those_that_act_do_so_in_the_order_of_their_tokens(
    tmp_path: Path,
) -> None:
    acted: list[int] = []

    async def act(token: int) -> None:
        async def note() -> None:
            await asyncio.sleep(0)
            acted.append(token)

        await acting(fences, token, note)

    async with opened(tmp_path) as fences:
        tokens = [(7 * number) % 101 for number in range(1, 101)]
        results = await asyncio.gather(*map(act, tokens), return_exceptions=True)
    assert acted == sorted(acted)
    assert acted[-1] == 100
    assert all(error is None or isinstance(error, LeaseTaken) for error in results)


async def test_a_fence_is_kept_while_there_is_something_behind_it_and_long_after(
    tmp_path: Path,
) -> None:
    now, used = [0.0], {UID}
    async with opened(tmp_path, used.__contains__, kept=DAY, now=lambda: now[0]) as fences:
        for uid in (UID, OTHER):
            await acting(fences, 9, of=uid, uid=uid)
        now[0] = DAY.total_seconds() - 1
        assert await fences.sweep() == 0
        now[0] += 2
        assert await fences.sweep() == 1
        await refused(fences, 8)
        assert await acting(fences, 8, of=OTHER, uid=OTHER) == "done"
        used.clear()
        now[0] += DAY.total_seconds() + 1
        await fences.sweep()
        assert await acting(fences, 8) == "done"


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "fences.db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(FencesTooNew):
        async with opened(tmp_path):
            pass


@pytest.mark.parametrize("text", [f"{UID}/12", "", "nonsense", f"{UID}/", f"{UID}/0", f"{UID}/-1"])
async def test_a_token_comes_in_the_metadata_of_a_service(
    protos: Protos, tmp_path: Path, text: str
) -> None:
    async def say(request: Any) -> str:
        return str(calls.current().fence)

    async with running(protos, tmp_path, say=say) as kit:
        call = kit.stub.Say(
            protos.pb.SayRequest(text="a"), metadata=(("cove-fencing-token", text),)
        )
        if text in ("", f"{UID}/12"):
            assert (await call).text == str(Fence(UID, 12) if text else None)
        else:
            failed = await failure(call)
            assert failed.code is grpc.StatusCode.INVALID_ARGUMENT


class Work:
    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cleaned = False

    async def do(self) -> str:
        self.began.set()
        try:
            await self.go_on.wait()
        finally:
            self.cleaned = True
        return "done"


async def done() -> str:
    return "done"


async def acting(
    fences: Fences,
    token: int,
    run: Callable[[], Awaitable[Any]] = done,
    *,
    of: str = UID,
    uid: str = UID,
    ends: bool = False,
) -> Any:
    """Act on `uid` with a token of `of`."""
    with calls.detached(fence=Fence(of, token)):
        return await fences.guard(uid, run, ends=ends)


async def refused(fences: Fences, token: int) -> None:
    with pytest.raises(LeaseTaken):
        await acting(fences, token)


async def until_refused(fences: Fences, token: int) -> None:
    """A later holder was let in, be it that it waits."""
    while True:
        try:
            await acting(fences, token)
        except LeaseTaken:
            return


@asynccontextmanager
async def opened(
    folder: Path, in_use: Callable[[str], bool] = lambda uid: False, **options: Any
) -> AsyncIterator[Fences]:
    async with Fences.open(folder / "fences.db", in_use, **options) as fences:
        yield fences
