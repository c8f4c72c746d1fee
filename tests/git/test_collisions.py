"""Heads of one repository that will be in each other's way."""

import itertools
from pathlib import Path

import pytest

from servicekit.errors import InvalidArgument
from services.git.collisions import HEADS, PATHS, Collision, Collisions, Head
from services.git.conflicts import Kind
from services.git.mergetree import Merging
from services.git.repository import Repository
from tests.git.parts import Parts, run_git
from tests.git.test_merge_conflicts import CASES, commit_edits, put, stock


async def stored(git: Parts, root: Path) -> Repository:
    await git.create(root)
    _, workspace = await git.ready()
    return workspace.repository


def branch(root: Path, name: str, files: dict[str, str]) -> Head:
    run_git(root, "checkout", "-q", "-f", "-B", name, "main")
    for path, text in files.items():
        put(path, text)(root)
    run_git(root, "add", "-A")
    run_git(root, "commit", "-q", "-m", name)
    return Head(name=name, commit=run_git(root, "rev-parse", "HEAD"))


def told(found: list[Collision]) -> dict[tuple[str, str], list[tuple[bytes, Kind]]]:
    return {
        (one.first, one.second): [(each.path, each.kind) for each in one.paths.shown]
        for one in found
    }


async def test_each_pair_that_collides_is_told_with_its_paths(git: Parts, source: Path) -> None:
    heads = [
        branch(source, "a", {"README": "a\n", "new": "a\n"}),
        branch(source, "b", {"README": "b\n"}),
        branch(source, "c", {"new": "c\n"}),
        branch(source, "d", {"alone": "d\n"}),
        branch(source, "e", {"README": "a\n"}),
    ]
    repository = await stored(git, source)
    found = await Collisions(Merging(git.cells)).find(repository, heads)
    assert told(found) == {
        ("a", "b"): [(b"README", Kind.CONTENT)],
        ("a", "c"): [(b"new", Kind.ADD_ADD)],
        ("b", "e"): [(b"README", Kind.CONTENT)],
    }


async def test_work_that_is_not_committed_counts_as_if_it_were(git: Parts, source: Path) -> None:
    one = branch(source, "one", {"README": "one\n"})
    other = branch(source, "other", {"README": "other\n"})
    tree = run_git(source, "rev-parse", f"{other.commit}^{{tree}}")
    base = run_git(source, "rev-parse", "main")
    repository = await stored(git, source)
    live = Head(name="live", commit=base, tree=tree)
    twin = Head(name="twin", commit=base, tree=tree)
    found = await Collisions(Merging(git.cells)).find(
        repository, [one, live, twin, Head(name="new", commit="")]
    )
    assert told(found) == {
        ("one", "live"): [(b"README", Kind.CONTENT)],
        ("one", "twin"): [(b"README", Kind.CONTENT)],
    }


async def test_what_was_compared_is_not_compared_again(git: Parts, source: Path) -> None:
    heads = [branch(source, name, {"README": name}) for name in "abc"]
    repository = await stored(git, source)
    collisions = Collisions(Merging(git.cells))
    first = await collisions.find(repository, heads)
    before = len(git.cells.names)
    assert await collisions.find(repository, heads[::-1]) != first
    assert await collisions.find(repository, heads) == first
    assert len(git.cells.names) == before


async def test_as_many_as_may_be_are_compared_and_no_more(git: Parts, source: Path) -> None:
    heads = [branch(source, f"h{number:02}", {"README": str(number)}) for number in range(HEADS)]
    repository = await stored(git, source)
    found = await Collisions(Merging(git.cells)).find(repository, heads)
    assert len(found) == HEADS * (HEADS - 1) // 2
    with pytest.raises(InvalidArgument):
        await Collisions(Merging(git.cells)).find(repository, [*heads, heads[0]])


async def test_long_lists_of_paths_are_cut_and_counted(git: Parts, source: Path) -> None:
    heads = [
        branch(source, name, {f"{number:03}": name for number in range(PATHS + 7)}) for name in "ab"
    ]
    [found] = await Collisions(Merging(git.cells)).find(await stored(git, source), heads)
    assert (len(found.paths.shown), found.paths.total) == (PATHS, PATHS + 7)


async def test_pairs_of_every_kind_collide_as_they_merge(git: Parts, tmp_path: Path) -> None:
    """All kinds of conflicts, with git's advice between them, in one conversation."""
    root = tmp_path / "root"
    root.mkdir()
    run_git(root, "init", "-q", "-b", "main")
    run_git(root, "commit", "-q", "--allow-empty", "-m", "x")
    heads, wanted = [], {}
    for number, (base, ours, theirs, _) in enumerate(CASES.values()):
        run_git(root, "checkout", "-q", "-f", "--orphan", f"base{number}")
        run_git(root, "rm", "-rfq", "--ignore-unmatch", ".")
        put("README", f"{number}\n")(root)
        commit_edits(root, base)
        sides = []
        for side, edits in (("ours", ours), ("theirs", theirs)):
            run_git(root, "checkout", "-q", "-f", "-B", side, f"base{number}")
            commit_edits(root, edits)
            sides.append(Head(name=f"{number}{side}", commit=run_git(root, "rev-parse", "HEAD")))
        heads.append(sides)
        wanted[number] = len({path for *_, path in stock(root)[1]})
        run_git(root, "reset", "-q", "--hard")
        for one in sides:
            run_git(root, "update-ref", f"refs/heads/{one.name}", one.commit)
    run_git(root, "checkout", "-q", "-f", "main")
    repository = await stored(git, root)
    for number, sides in enumerate(heads):
        found = await Collisions(Merging(git.cells)).find(repository, sides)
        assert sum(one.paths.total for one in found) == wanted[number], list(CASES)[number]
    several = list(itertools.chain(*heads))[:HEADS]
    assert await Collisions(Merging(git.cells)).find(repository, several)
