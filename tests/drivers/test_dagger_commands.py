"""What a command on a Dagger engine is given, and what becomes of it when somebody interferes."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.dagger import shim
from engines.dagger.command import uninterrupted
from tests.drivers.dagger_double.process import DoubleEngine
from tests.drivers.dagger_support import Bench, bench

UID = "aaaaaaaaaaaaaaaa"
OWN = ("cd", "limit", "whole", "merge", "count", "code", "watch")
"""Names that the script which runs commands had for itself."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoubleEngine]:
    running = DoubleEngine(tmp_path_factory.mktemp("engine")).start()
    yield running
    running.kill()


async def run(
    node: Bench, argv: list[str], env: dict[str, str], timeout: float = 0, **secret: str
) -> tuple[str, bytes]:
    """Its code, as the script wrote it, and its output."""
    made = shim.argv(argv, env, "/workspace", timeout=timeout, merge=True)
    environments = node.environments
    async with environments.writing(UID), environments.scratch() as folder:
        begun = await environments.run(await environments.opened(UID), made, tuple(secret.items()))
        ran = await begun.wait(folder)
        return ran.code, ran.out.read_bytes()


async def test_variables_may_have_any_name(tmp_path: Path, engine: DoubleEngine) -> None:
    async with bench(tmp_path / "node", engine) as node:
        await node.create(UID, node.tree())
        wanted = {name: str(number) for number, name in enumerate(OWN, 7)}
        shown = "".join(f"${name}" for name in OWN)
        same = ["sh", "-c", f'[ "{shown}" = 78910111213 ] && echo so it is']
        assert await run(node, same, wanted) == ("0", b"so it is\n")
        assert await run(node, same, {}, 0, **wanted) == ("0", b"so it is\n")


@pytest.mark.long
async def test_a_path_without_programs_is_the_command_s_alone(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        await node.create(UID, node.tree())
        script = "read line < /proc/uptime; echo $PATH"
        found = await run(node, ["/bin/sh", "-c", script], {"PATH": "/none"}, timeout=60)
        assert found == ("0", b"/none\n")


async def test_a_command_is_a_program_whatever_the_shell_has(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        await node.create(UID, node.tree())
        assert await run(node, ["echo", "a\\tb"], {}) == ("0", b"a\\tb\n")
        code, _ = await run(node, ["exit", "3"], {})
        assert code == "127"


async def test_what_is_written_while_a_command_runs_is_there_for_the_next(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        tree = Path(node.tree())
        await node.create(UID, str(tree))
        begun = asyncio.Event()
        running = asyncio.create_task(
            node.preview(UID, ["sh", "-c", "echo begun; sleep 1"], lambda *_: begun.set())
        )
        await begun.wait()
        (tree / "new").write_text("content")
        node.environments.heads.touched(UID)
        await running
        assert (await node.run(UID, "cat new")).out == b"content"


@pytest.mark.long
async def test_what_is_written_before_a_command_begins_is_there_for_it(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        tree = Path(node.tree())
        await node.create(UID, str(tree))
        environments = node.environments
        argv = shim.argv(["cat", "new"], {}, "/workspace", timeout=0, merge=False)
        async with environments.scratch() as folder:
            head = await environments.opened(UID)
            (tree / "new").write_text("content")
            environments.heads.touched(UID)  # Since it was looked at.
            ran = await (await environments.run(head, argv)).wait(folder)
            assert ran.out.read_bytes() == b"content"


async def test_what_a_thread_works_on_is_kept_until_it_has_ended() -> None:
    reading, writing = os.pipe()
    begun, go = threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        go.wait()
        return os.write(writing, b"all of it")

    task = asyncio.create_task(uninterrupted(work))
    await asyncio.to_thread(begun.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    assert await task == 9
    os.close(writing)
    os.close(reading)
