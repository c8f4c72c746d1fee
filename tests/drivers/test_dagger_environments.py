"""Environments on a Dagger engine, against its double: generations, identity, loss."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.handle import Handle
from engines.dagger import shim
from engines.dagger.errors import (
    CommandLost,
    EngineLost,
    HandleBehind,
    HandleInvalid,
    HandleStale,
    SetupFailed,
)
from engines.dagger.heads import Head
from tests.drivers.dagger_double.process import DoubleEngine
from tests.drivers.dagger_support import NODE, bench

UID, OTHER = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoubleEngine]:
    running = DoubleEngine(tmp_path_factory.mktemp("engine")).start()
    yield running
    running.kill()


async def test_a_command_is_a_generation_and_its_files_are_in_the_worktree(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        tree = node.tree(a_txt="a\n")
        head = await node.create(UID, tree)
        done = await node.run(UID, "cat a.txt; echo b > b.txt; mkdir d; echo c > d/c; rm a.txt")
        assert done.out == b"a\n"
        assert done.ran.code == "0"
        assert done.head.generation == head.generation + 1
        assert (Path(tree) / "b.txt").read_text() == "b\n"
        assert (Path(tree) / "d" / "c").read_text() == "c\n"
        assert not (Path(tree) / "a.txt").exists()
        assert (await node.run(UID, "ls")).out == b"b.txt\nd\n"


async def test_what_a_command_changed_outside_of_the_worktree_is_there_for_the_next(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        await node.create(UID, node.tree())
        await node.run(UID, "echo kept > /home/cove/note; echo tool > /home/cove/tool")
        assert (await node.run(UID, "cat /home/cove/note /home/cove/tool")).out == b"kept\ntool\n"


async def test_setup_is_run_once_for_all_environments_that_have_it(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        setup = ("date +%N > /made",)
        await node.create(UID, node.tree("one"), setup=setup)
        before = engine.commands
        await node.create(OTHER, node.tree("two"), setup=setup)
        assert engine.commands == before
        made = [await node.run(uid, "cat /made") for uid in (UID, OTHER)]
        assert made[0].out == made[1].out != b""


async def test_a_setup_that_fails_says_what_it_said_and_leaves_nothing(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        with pytest.raises(SetupFailed) as failed:
            await node.create(UID, node.tree(), setup=("echo no such package >&2; exit 3",))
        assert (failed.value.code, failed.value.tail) == (3, "no such package")
        assert node.environments.heads.uids() == []


async def test_a_command_that_is_killed_leaves_the_environment_as_it_was(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        head = await node.create(UID, node.tree())
        with pytest.raises(CommandLost):
            await node.run(UID, "echo lost > lost; kill -9 $PPID; sleep 5")
        assert (await node.environments.opened(UID)).container == head.container
        assert (await node.run(UID, "ls")).out == b""


async def test_codes_that_the_engine_keeps_for_itself_are_told_and_their_state_is_kept(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        await node.create(UID, node.tree())
        for code in (1, 127, 128, 137, 143, 191, 192, 255):
            done = await node.run(UID, f"echo {code} >> codes; exit {code}")
            assert done.ran.code == str(code)
        assert len((await node.run(UID, "cat codes")).out.split()) == 8


async def test_bytes_that_are_no_text_come_out_as_they_are(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        tree = node.tree()
        await node.create(UID, tree)
        done = await node.run(UID, r"printf '\377\000\376'; printf '\375' >&2; printf '\200' > x")
        assert (done.out, done.err) == (b"\xff\x00\xfe", b"\xfd")
        assert (Path(tree) / "x").read_bytes() == b"\x80"


async def test_git_of_the_worktree_is_neither_seen_nor_changed_by_commands(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        tree = node.tree()
        (Path(tree) / ".git").mkdir()
        (Path(tree) / ".git" / "config").write_text("ours")
        await node.create(UID, tree)
        done = await node.run(
            UID, "ls -a | grep git; mkdir .git; echo theirs > .git/config; echo > a"
        )
        assert done.out == b""
        assert (Path(tree) / ".git" / "config").read_text() == "ours"
        assert (Path(tree) / "a").exists()


async def test_a_link_in_the_worktree_leads_no_change_out_of_it(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        outside = tmp_path / "outside"
        outside.mkdir()
        tree = node.tree()
        (Path(tree) / "d").symlink_to(outside)
        await node.create(UID, tree)
        await node.run(UID, "rm d; mkdir d; echo in > d/file")
        assert list(outside.iterdir()) == []
        assert (Path(tree) / "d" / "file").read_text() == "in\n"


async def test_what_was_written_into_the_worktree_is_there_for_the_next_command(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        tree = node.tree(a_txt="old")
        await node.create(UID, tree)
        node.environments.heads.touched(UID)
        (Path(tree) / "a.txt").unlink()
        (Path(tree) / "b.txt").write_text("new")
        assert (await node.run(UID, "ls; cat b.txt")).out == b"b.txt\nnew"


async def test_an_older_handle_opens_nothing_and_says_which_is_in_force(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        first = await node.create(UID, node.tree())
        head = (await node.run(UID, "true")).head
        with pytest.raises(HandleBehind) as behind:
            await node.environments.opened(UID, first.handle(NODE))
        assert behind.value.generation == head.generation


async def test_a_forged_handle_opens_nothing(tmp_path: Path, engine: DoubleEngine) -> None:
    async with bench(tmp_path / "node", engine) as node:
        head = await node.create(UID, node.tree("one"))
        other = await node.create(OTHER, node.tree("two"))
        forged = (
            replace(head, uid=OTHER),
            replace(head, container=other.container),
            replace(head, epoch=other.epoch),
            replace(head, engine="elsewhere"),
            replace(head, generation=head.generation + 1),
            replace(other, uid=UID, generation=9),
        )
        for each in forged:
            with pytest.raises((HandleInvalid, HandleStale)):
                await node.environments.opened(UID, each.handle(NODE))
        for broken in (b"", b"nonsense", head.handle("node-2"), _with_schema(head, "9")):
            with pytest.raises((HandleInvalid, HandleStale)):
                await node.environments.opened(UID, broken or b"x")
        assert await node.environments.opened(UID, head.handle(NODE)) == head


async def test_an_engine_that_gives_its_names_anew_opens_no_other_environment(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        await node.create(UID, node.tree("one"))
        head = (await node.run(UID, "echo mine > /home/cove/mine")).head
        engine.kill()
        engine.start(cold=True)
        async with bench(tmp_path / "other", engine) as other:
            for number in range(6):  # Whose names are the same integers now.
                await other.create(f"{'c' * 15}{'abcdefg'[number]}", other.tree(f"t{number}"))
            with pytest.raises(HandleStale):
                await _twice(node.environments.opened, UID, head.handle(NODE))
            made = await node.environments.rebuild(UID)
            assert made.generation > head.generation
            assert (await node.run(UID, "ls /home/cove/mine")).out == b""


async def test_an_engine_that_stopped_in_order_has_everything(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        await node.create(UID, node.tree())
        await node.run(UID, "echo mine > /home/cove/mine")
        engine.stop()
        engine.start()
        await _twice(node.environments.opened, UID)
        assert (await node.run(UID, "cat /home/cove/mine")).out == b"mine\n"


async def test_a_fork_begins_as_the_other_and_goes_its_own_way(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        await node.create(UID, node.tree("one", a_txt="a"))
        head = (await node.run(UID, "echo tool > /home/cove/tool")).head
        record = node.environments.heads.record(UID)
        assert record
        twin = replace(record, uid=OTHER, tree=node.tree("two", b_txt="b"))
        forked = await node.environments.fork(head, twin)
        assert (
            await node.run(OTHER, "cat /home/cove/tool; ls; echo 2 > /home/cove/tool")
        ).out == b"tool\nb.txt\n"
        assert (await node.run(UID, "cat /home/cove/tool; ls")).out == b"tool\na.txt\n"
        with pytest.raises(HandleInvalid):
            await node.environments.opened(UID, forked.handle(NODE))


async def test_layers_are_made_one_before_there_are_too_many(tmp_path: Path) -> None:
    engine = DoubleEngine(tmp_path / "engine", layers=14).start()
    try:
        async with bench(tmp_path / "node", engine, generations=8) as node:
            await node.create(UID, node.tree())
            for number in range(20):
                await node.run(UID, f"echo {number} >> /home/cove/count")
            assert len((await node.run(UID, "cat /home/cove/count")).out.split()) == 20
    finally:
        engine.kill()


async def test_a_timeout_ends_the_command_and_keeps_what_it_did(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        await node.create(UID, node.tree())
        done = await node.run(UID, "echo begun; echo x > x; sleep 60", timeout=2)
        assert done.out == b"begun\n"
        assert done.ran.code.startswith("t")
        assert (await node.run(UID, "cat x")).out == b"x\n"


async def test_secrets_are_given_to_one_command_and_kept_by_none(
    tmp_path: Path, engine: DoubleEngine
) -> None:
    async with bench(tmp_path / "node", engine) as node:
        await node.create(UID, node.tree())
        argv = shim.argv(
            ["sh", "-c", 'echo "$WORD" > w; wc -c < w'], {}, "/workspace", timeout=0, merge=False
        )
        async with node.environments.scratch() as folder:
            head = await node.environments.opened(UID)
            run = await node.environments.run(head, argv, (("WORD", "hunter22"),))
            assert (await run.wait(folder)).out.read_bytes() == b"9\n"
        assert (await node.run(UID, 'echo "[$WORD]"')).out == b"[]\n"


async def test_an_environment_stays_on_the_engine_it_was_made_on(tmp_path: Path) -> None:
    engines = [DoubleEngine(tmp_path / f"engine-{number}").start() for number in (1, 2)]
    try:
        async with bench(tmp_path / "node", *engines) as node:
            head = await node.create(UID, node.tree())
            assert head.engine == "engine-1"
            moved = replace(head, engine="engine-2", generation=2)
            with pytest.raises(HandleStale):
                await node.environments.opened(UID, moved.handle(NODE))
            engines[0].kill()
            with pytest.raises(EngineLost):
                await node.environments.opened(UID)
    finally:
        for each in engines:
            each.kill()


async def _twice(call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Once more when the session was found lost, as callers do."""
    try:
        return await call(*arguments)
    except EngineLost:
        return await call(*arguments)


def _with_schema(head: Head, version: str) -> bytes:
    handle = Handle.decode(head.handle(NODE))
    _, _, rest = handle.locator.partition(".")
    return replace(handle, locator=f"{version}.{rest}").encode()
