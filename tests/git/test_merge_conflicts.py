"""Every kind of conflict, against stock git on a plain clone: the same trees, the same stages."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from services.git.conflicts import LIMIT, Kind, read
from services.git.merge import Asked, Preview
from tests.git.parts import Parts, run_git

Edit = Callable[[Path], object]
_TEN: Final = "".join(f"line {number}\n" for number in range(10))


def put(name: str | bytes, text: str | bytes) -> Edit:
    def edit(root: Path) -> None:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    return edit


def rm(name: str) -> Edit:
    def edit(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return edit


def mv(old: str, new: str) -> Edit:
    def edit(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)

    return edit


def link(name: str, to: str) -> Edit:
    def edit(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(to)

    return edit


def submodule(name: str, digit: str) -> Edit:
    def edit(root: Path) -> None:
        run_git(root, "update-index", "--add", "--cacheinfo", f"160000,{digit * 40},{name}")

    return edit


def many(count: int, text: str) -> list[Edit]:
    return [put(f"many/{number:05}", text) for number in range(count)]


CASES: Final[dict[str, tuple[list[Edit], list[Edit], list[Edit], set[Kind]]]] = {
    "clean": ([put("a", _TEN)], [put("a", "0\n" + _TEN)], [put("a", _TEN + "9\n")], set()),
    "clean rename": ([put("a", _TEN)], [mv("a", "b")], [put("a", _TEN + "9\n")], set()),
    "content": ([put("a", _TEN)], [put("a", "x")], [put("a", "y")], {Kind.CONTENT}),
    "binary": ([put("a", b"\0")], [put("a", b"\0x")], [put("a", b"\0y")], {Kind.BINARY}),
    "add/add": ([], [put("a", "x")], [put("a", "y")], {Kind.ADD_ADD}),
    "modify/delete": ([put("a", _TEN)], [put("a", "x")], [rm("a")], {Kind.MODIFY_DELETE}),
    "delete/modify": ([put("a", _TEN)], [rm("a")], [put("a", "x")], {Kind.MODIFY_DELETE}),
    "rename/delete": ([put("a", _TEN)], [mv("a", "b")], [rm("a")], {Kind.RENAME_DELETE}),
    "rename/rename": ([put("a", _TEN)], [mv("a", "b")], [mv("a", "c")], {Kind.RENAME_RENAME}),
    "two to one": (
        [put("a", _TEN), put("b", _TEN[::-1])],
        [mv("a", "c")],
        [mv("b", "c")],
        {Kind.ADD_ADD},
    ),
    "file/directory": ([], [put("a", "x")], [put("a/b", "y")], {Kind.FILE_DIRECTORY}),
    "directory/file": (
        [put("a/b", "y")],
        [put("a/b", "z")],
        [rm("a"), put("a", "x")],
        {Kind.FILE_DIRECTORY, Kind.MODIFY_DELETE},
    ),
    "link and file": ([], [put("a", "x")], [link("a", "b")], {Kind.MODE}),
    "two links": ([link("a", "b")], [link("a", "c")], [link("a", "d")], {Kind.CONTENT}),
    "submodule": (
        [submodule("sub", "1")],
        [submodule("sub", "2")],
        [submodule("sub", "3")],
        {Kind.SUBMODULE},
    ),
    "submodule clean": ([submodule("sub", "1")], [submodule("sub", "2")], [put("b", "x")], set()),
    "directory rename": (
        [put("d/1", "1" * 50), put("d/2", "2" * 50)],
        [mv("d", "e")],
        [put("d/3", "3" * 50)],
        {Kind.DIRECTORY_RENAME},
    ),
    "names": (
        [],
        [put("-dash", "x"), put("new\nline", "x"), put(b"\xff\xfe", "x"), put('q"\t\\', "x")],
        [put("-dash", "y"), put("new\nline", "y"), put(b"\xff\xfe", "y"), put('q"\t\\', "y")],
        {Kind.ADD_ADD},
    ),
    "mode": ([put("a", _TEN)], [lambda root: (root / "a").chmod(0o755)], [put("a", "x")], set()),
}


def history(root: Path, base: list[Edit], ours: list[Edit], theirs: list[Edit]) -> Path:
    """A repository with branches `ours` and `theirs`."""
    root.mkdir()
    run_git(root, "init", "-q", "-b", "main")
    put("README", "hello\n")(root)
    commit_edits(root, base)
    for branch, edits in (("ours", ours), ("theirs", theirs)):
        run_git(root, "checkout", "-q", "-f", "-b", branch, "main")
        commit_edits(root, edits)
    run_git(root, "checkout", "-q", "-f", "main")
    return root


def commit_edits(root: Path, edits: list[Edit]) -> None:
    staged = [edit for edit in edits if "submodule" in edit.__qualname__]
    for edit in edits:
        if edit not in staged:
            edit(root)
    run_git(root, "add", "-A")
    for edit in [edit for edit in edits if edit in staged]:
        edit(root)
    # `add -A` would take a submodule that is not checked out for a deleted one.
    run_git(root, "commit", "-q", "--allow-empty", "-m", "x")


def stock(root: Path) -> tuple[str, set[tuple[str, str, int, bytes]]]:
    """The tree, empty with conflicts, and the stages that `git merge` leaves."""
    run_git(root, "checkout", "-q", "-f", "ours")
    run_git(root, "merge", "--no-commit", "--no-ff", "theirs", check=False)
    listed = os.fsencode(run_git(root, "ls-files", "-u", "-z"))
    stages = set()
    for line in filter(None, listed.split(b"\0")):
        facts, _, path = line.partition(b"\t")
        mode, identity, number = facts.decode().split()
        stages.add((mode, identity, int(number), path))
    return "" if stages else run_git(root, "write-tree"), stages


def stages_of(seen: Preview) -> set[tuple[str, str, int, bytes]]:
    """In stock git's words: the sides are called otherwise there."""
    found = set()
    for conflict in seen.merged.conflicts:
        path = conflict.path.replace(b"~" + seen.target.head.encode(), b"~HEAD")
        path = path.replace(b"~" + seen.source.encode(), b"~theirs")
        for number, side in enumerate((conflict.base, conflict.ours, conflict.theirs), 1):
            if side:
                found.add((side.mode, side.id, number, path))
    return found


async def preview(git: Parts, root: Path) -> Preview:
    await git.create(root)
    record, workspace = await git.ready()
    asked = Asked(source="theirs", target="ours")
    return await git.merger.preview(record, workspace, asked, None)


@pytest.mark.parametrize("name", CASES)
async def test_conflicts_are_those_of_git_merge(git: Parts, tmp_path: Path, name: str) -> None:
    base, ours, theirs, kinds = CASES[name]
    root = history(tmp_path / "root", base, ours, theirs)
    seen = await preview(git, root)
    tree, stages = stock(root)
    assert stages_of(seen) == stages
    assert {conflict.kind for conflict in seen.merged.conflicts} == kinds
    assert seen.fits is not bool(stages)
    assert seen.merged.total == len(seen.merged.conflicts)
    if tree:
        assert seen.merged.tree == tree
    for conflict in seen.merged.conflicts:
        assert conflict.message
        assert seen.source not in conflict.message.replace("~" + seen.source, "")


async def test_criss_cross_histories_merge_as_git_does(git: Parts, tmp_path: Path) -> None:
    root = history(tmp_path / "root", [put("a", _TEN)], [put("a", "0\n" + _TEN)], [put("b", "1")])
    run_git(root, "checkout", "-q", "ours")
    run_git(root, "branch", "was")
    run_git(root, "merge", "-q", "-m", "m", "theirs")
    run_git(root, "checkout", "-q", "theirs")
    run_git(root, "merge", "-q", "-m", "m", "was")
    commit_edits(root, [put("a", "00\n" + _TEN)])
    run_git(root, "checkout", "-q", "ours")
    commit_edits(root, [put("b", "2")])
    run_git(root, "checkout", "-q", "main")
    seen = await preview(git, root)
    assert (seen.merged.tree, set()) == stock(root)


async def test_no_attributes_and_no_configuration_of_the_repository_count(
    git: Parts, tmp_path: Path
) -> None:
    driver = "* merge=evil\n*.union merge=union\n"
    base = [put(".gitattributes", driver), put("a", _TEN), put("b.union", _TEN)]
    root = history(
        tmp_path / "root",
        base,
        [put("a", "x"), put("b.union", "x")],
        [put("a", "y"), put("b.union", "y")],
    )
    run_git(root, "config", "merge.evil.driver", f"touch {tmp_path}/ran")
    run_git(root, "config", "merge.default", "evil")
    seen = await preview(git, root)
    assert [one.path for one in seen.merged.conflicts] == [b"a", b"b.union"]
    assert not (tmp_path / "ran").exists()
    stock(root)
    assert (tmp_path / "ran").exists()  # It is what plain git would have run.


async def test_very_many_conflicts_are_counted_and_cut(git: Parts, tmp_path: Path) -> None:
    count = LIMIT + 5
    root = history(tmp_path / "root", many(count, "b"), many(count, "o"), many(count, "t"))
    seen = await preview(git, root)
    assert (seen.merged.total, len(seen.merged.conflicts)) == (count, LIMIT)


def test_long_names_are_cut_by_their_bytes() -> None:
    oid = "1" * 40
    entries = [f"100644 {oid} 2\t{number}{'x' * 4000}" for number in range(900)]
    output = "\0".join([oid, *entries, "", ""]).encode()
    found = read(output, {}, clean=False)
    assert found.total == 900
    assert 0 < len(found.conflicts) < 300


def test_what_git_does_not_print_is_refused_not_believed() -> None:
    seed = random.Random(1)
    oid = b"1" * 40
    parts = [oid, b"100644 " + oid + b" 2\ta", b"", b"1", b"a", b"CONFLICT (contents)", b"text"]
    whole = b"\0".join([*parts, b""])
    assert read(whole, {}, clean=False).total == 1
    for _ in range(2000):
        cut = bytearray(whole)
        cut[seed.randrange(len(cut))] = seed.randrange(256)
        try:
            read(bytes(cut[: seed.randrange(len(cut)) + 1]), {}, clean=False)
        except ValueError:
            continue
