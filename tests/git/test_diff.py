"""Diffs: what they show, and where they are cut."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from services.git import diff
from services.git.diff import End, Event, File, Limits, Patch
from services.git.draft import Draft
from services.git.status import Change
from tests.git.parts import (
    Parts,
    each_mode,
    make_source,
    own,
    run_git,
    tree_of,
    write,
)

mode = each_mode


async def collect(events: AsyncGenerator[Event, None]) -> list[Event]:
    async with aclosing(events) as stream:
        return [event async for event in stream]


async def work(git: Parts, limits: Limits, paths: Sequence[bytes] = ()) -> list[Event]:
    record, workspace = await git.ready()
    return await collect(diff.of_work(workspace, record.base_commit, paths, limits))


def files(events: Sequence[Event]) -> list[File]:
    return [event for event in events if isinstance(event, File)]


def patch_of(events: Sequence[Event], path: bytes) -> bytes:
    data, current = b"", b""
    for event in events:
        if isinstance(event, File):
            current = event.path
        elif isinstance(event, Patch) and current == path:
            data += event.data
    return data


async def test_a_diff_shows_every_kind_of_change_and_can_be_applied(
    git: Parts, tmp_path: Path
) -> None:
    body = "".join(f"line {number}\n" for number in range(50))
    source = make_source(
        tmp_path / "kinds",
        {"changed": body, "gone": "x\n", "moved": body * 2, "mode": "m\n", "type": "t\n"},
    )
    await git.create(source)
    record, workspace = await git.ready()
    tree = tree_of(workspace)
    write(workspace, "changed", body + "more\n")
    (tree / "gone").unlink()
    (tree / "moved").rename(tree / "mo ved")
    (tree / "mode").chmod(0o755)
    (tree / "type").unlink()
    (tree / "type").symlink_to("changed")
    own(workspace, tree / "type")
    write(workspace, "new", "no newline at the end")
    write(workspace, b"odd\xff\nname", "diff --git a/x b/x\n")
    events = await work(git, Limits())
    assert {(file.path, file.change, file.additions, file.deletions) for file in files(events)} == {
        (b"changed", Change.MODIFIED, 1, 0),
        (b"gone", Change.DELETED, 0, 1),
        (b"mo ved", Change.RENAMED, 0, 0),
        (b"mode", Change.MODIFIED, 0, 0),
        (b"type", Change.TYPE_CHANGED, 1, 1),
        (b"new", Change.ADDED, 1, 0),
        (b"odd\xff\nname", Change.ADDED, 1, 0),
    }
    [renamed] = [file for file in files(events) if file.change is Change.RENAMED]
    assert renamed.old_path == b"moved"
    assert events[-1] == End(7, 4, 2, truncated=False)
    for file in files(events):
        assert patch_of(events, file.path).startswith(b"diff --git ")
    whole = b"".join(event.data for event in events if isinstance(event, Patch))
    run_git(source, "apply", "--index", "-", stdin=whole)
    done = await git.committer.commit(record, workspace, Draft(message="x"))
    [made] = (git.state / "git" / "repositories").glob("*/*.git")
    assert run_git(source, "write-tree") == run_git(made, "rev-parse", f"{done.commit}^{{tree}}")
    after = await collect(diff.of_commits(workspace, record.base_commit, done.commit, [], Limits()))
    assert files(after) == files(events)


async def test_binary_files_are_marked_and_have_no_patch_of_bytes(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    write(workspace, "binary", bytes(range(256)) * 1000)
    write(workspace, "text", "text\n")
    events = await work(git, Limits())
    assert [(file.path, file.binary) for file in files(events)] == [
        (b"binary", True),
        (b"text", False),
    ]
    assert patch_of(events, b"binary") == b""
    assert b"+text" in patch_of(events, b"text")


async def test_each_limit_leaves_a_mark(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    for name in ("a", "b", "c"):
        write(workspace, name, "line\n" * 1000)

    def marks(events: Sequence[Event]) -> list[bool]:
        return [event.truncated for event in events if isinstance(event, Patch | End)]

    assert marks(await work(git, Limits())) == [False, False, False, False]
    by_file = await work(git, Limits(file_bytes=500))
    assert marks(by_file) == [True, True, True, True]
    assert len(patch_of(by_file, b"a")) <= 500
    assert patch_of(by_file, b"a").endswith(b"\n")
    by_lines = await work(git, Limits(lines=1500))
    assert marks(by_lines) == [False, True, True, True]
    assert patch_of(by_lines, b"c") == b""
    by_bytes = await work(git, Limits(bytes=7000))
    assert marks(by_bytes) == [False, True, True, True]
    by_files = await work(git, Limits(files=2))
    assert len(files(by_files)) == 2
    assert by_files[-1] == End(3, 3000, 0, truncated=True)


async def test_a_line_longer_than_memory_should_hold_is_cut(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    write(workspace, "long", "x" * (4 << 20))
    events = await work(git, Limits(file_bytes=1 << 20))
    assert len(patch_of(events, b"long")) == 1 << 20
    assert isinstance(events[-1], End)
    assert events[-1].truncated


@pytest.mark.parametrize("paths", [[b"src"], [b"src/a.txt"]])
async def test_only_the_paths_named_are_compared(
    git: Parts, source: Path, paths: Sequence[bytes]
) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    write(workspace, "README", "x")
    write(workspace, "src/a.txt", "x")
    events = await work(git, Limits(), paths)
    assert [file.path for file in files(events)] == [b"src/a.txt"]


async def test_no_difference_is_just_the_end(git: Parts, source: Path) -> None:
    await git.create(source)
    assert await work(git, Limits()) == [End(0, 0, 0, truncated=False)]


async def test_a_reader_that_leaves_early_leaves_nothing_behind(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    for number in range(50):
        write(workspace, f"{number}", "line\n" * 2000)
    events = diff.of_work(workspace, record.base_commit, [], Limits())
    async with aclosing(events) as stream:
        async for _ in stream:
            break
    assert not list(workspace.paths.scratch.iterdir())
