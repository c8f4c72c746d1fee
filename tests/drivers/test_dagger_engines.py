"""Several engines of one node: an environment stays where it was made, until that is lost and it
may be made anew."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.dagger.errors import EngineLost, HandleBehind
from tests.drivers.dagger_double.process import DoubleEngine
from tests.drivers.dagger_support import NODE, bench

pytestmark = pytest.mark.long

UID, OTHER = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"
START = 10.0


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[list[DoubleEngine]]:
    running = [DoubleEngine(tmp_path / f"engine-{number}").start() for number in (1, 2)]
    yield running
    for each in running:
        each.kill()


async def test_one_whose_engine_is_lost_is_made_anew_on_another_where_it_may(
    tmp_path: Path, engines: list[DoubleEngine]
) -> None:
    setup = ("echo set up > /set-up",)
    async with bench(tmp_path / "node", *engines, start=START) as node:
        tree = node.tree(a_txt="a\n")
        head = await node.create(UID, tree, setup=setup, rebuild=True)
        before = (await node.run(UID, "echo b > b.txt; echo gone > /tmp/note")).head
        assert (head.engine, before.generation) == ("engine-1", 2)
        engines[0].kill()
        # Everybody notices at once, and one of them makes it.
        found = await asyncio.gather(
            *(node.environments.recovered(UID, before.handle(NODE)) for _ in range(3))
        )
        assert {(head.engine, head.generation) for head, _ in found} == {("engine-2", 3)}
        assert all(anew for _, anew in found)
        done = await node.run(UID, "cat a.txt b.txt /set-up; cat /tmp/note; true")
        assert done.out == b"a\nb\nset up\n"
        with pytest.raises(HandleBehind):
            await node.environments.opened(UID, before.handle(NODE))
        # It stays there when the first one is back.
        engines[0].start()
        assert (await node.environments.opened(UID)).engine == "engine-2"


async def test_one_that_may_not_waits_for_its_engine(
    tmp_path: Path, engines: list[DoubleEngine]
) -> None:
    async with bench(tmp_path / "node", *engines, start=START) as node:
        head = await node.create(UID, node.tree())
        engines[0].stop()
        with pytest.raises(EngineLost):
            await node.environments.recovered(UID, head.handle(NODE))
        assert node.environments.heads.head(UID) == head
        engines[0].start()
        assert await node.environments.recovered(UID, head.handle(NODE)) == (head, False)


async def test_what_is_new_is_made_where_somebody_answers(
    tmp_path: Path, engines: list[DoubleEngine]
) -> None:
    engines[0].kill()
    async with bench(tmp_path / "node", *engines, start=START) as node:
        assert (await node.create(UID, node.tree())).engine == "engine-2"
        engines[1].kill()
        with pytest.raises(EngineLost):
            await node.create(OTHER, node.tree("other"))


async def test_one_that_takes_questions_and_answers_none_is_lost(
    tmp_path: Path, engines: list[DoubleEngine]
) -> None:
    async with bench(tmp_path / "node", engines[0], start=START) as node:
        assert await node.engines.version()
        engines[0].hold()
        try:
            with pytest.raises(EngineLost):
                await node.engines.version()
            assert not await node.engines.named("engine-1").answers()
        finally:
            engines[0].go_on()
