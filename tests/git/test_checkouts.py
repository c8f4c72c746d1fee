"""Checkouts as layers: what they hold, how they are shared, and when they go."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from servicekit.disk import DiskFull
from services.git import checkouts as module
from services.git import shelf
from services.git.checkouts import Checkout, Checkouts
from services.git.errors import PathForbidden, RevisionNotFound
from tests.git import overlay
from tests.git.parts import Parts, run_git
from tests.git.trees import (
    FILE,
    LINK,
    PROGRAM,
    SUBMODULE,
    Entry,
    Store,
    Tree,
    changed,
    randomly,
    sized,
)

GIB = 1 << 30


@dataclass
class Cache:
    """Checkouts of one repository, and what stands on them."""

    git: Parts
    store: Store
    root: Path
    checkouts: Checkouts
    used: list[tuple[Path, str]] = field(default_factory=list)

    async def get(self, commit: str) -> Checkout:
        return await self.checkouts.get(self.store.repository, commit)

    def find(self, commit: str) -> Checkout | None:
        return self.checkouts.find(self.store.repository, commit)

    async def again(self, limit: int = GIB) -> None:
        """As after a restart."""
        await self.checkouts.close()
        self.checkouts = Checkouts(self.root, self.git.cells, limit, lambda: self.used)
        await self.checkouts.load()

    @property
    def fills(self) -> int:
        return self.git.cells.names.count("checkout-index")

    def on_disk(self) -> list[str]:
        """All that is there, but what is in the checkouts."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob("*/*/*"))


@pytest.fixture
async def cache(git: Parts) -> AsyncIterator[Cache]:
    root = git.state / "git" / "checkouts"
    used: list[tuple[Path, str]] = []
    made = Cache(git, Store(git), root, Checkouts(root, git.cells, GIB, lambda: used), used)
    await made.checkouts.load()
    yield made
    await made.checkouts.close()


def place(cache: Cache, commit: str) -> str:
    return f"acme/key/{commit}"


def in_overlay(cache: Cache, checkout: Checkout, upper: Path, *command: str) -> str:
    """What a command prints that runs on the layers, under a new or the same upper one."""
    owner = cache.git.cells.sandbox
    for folder in (upper, upper / "up", upper / "work"):
        folder.mkdir(exist_ok=True)
        os.chown(folder, owner.uid, owner.gid)
    layers = ":".join(map(str, checkout.layers))
    objects = cache.store.repository.objects
    result = subprocess.run(
        [
            *(sys.executable, "-I", "-S", overlay.__file__, layers),
            *map(str, (upper / "up", upper / "work")),
            *(str(objects), str(owner.uid), *command),
        ],
        capture_output=True,
        check=False,
    )
    if result.returncode == overlay.CANNOT:
        pytest.skip(f"no overlay here: {result.stderr.decode()}")
    assert result.returncode == 0, (result.stdout, result.stderr)
    return result.stdout.decode()


def give(cache: Cache, upper: Path, name: str, text: str) -> None:
    """Write a file of the upper layer, as the service would."""
    owner = cache.git.cells.sandbox
    path = upper / "up" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for one in (path, *path.parents):
        if one == upper:
            break
        os.chown(one, owner.uid, owner.gid)


def seen(tree: Path) -> dict[str, list[str | int]]:
    return overlay.listing(os.fsencode(tree))


def stated(tree: Path) -> list[tuple[str, int, int, int, bytes]]:
    """Everything of a checkout that must not change."""
    found = []
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found.append((str(path), status.st_mode, status.st_mtime_ns, status.st_ctime_ns, content))
    return found


SAMPLE: Tree = {
    b"README": Entry(FILE, b"hello\n"),
    b"run": Entry(PROGRAM, b"#!/bin/sh\n"),
    b"link": Entry(LINK, b"/nowhere/file"),
    b"src/a.txt": Entry(FILE, b"one\ntwo\n"),
    b"src/\xff": Entry(FILE, b"no utf-8\n"),
    b"sub": Entry(SUBMODULE, b"1" * 40),
}


async def test_a_checkout_is_what_git_makes_of_the_commit(cache: Cache, tmp_path: Path) -> None:
    commit = cache.store.commit(SAMPLE)
    checkout = await cache.get(commit)
    (tree,) = checkout.layers
    assert seen(tree) == seen(cache.store.checked_out(commit, tmp_path / "plain"))
    assert cache.on_disk() == [place(cache, commit)]
    meta = json.loads((tree.parent / "meta.json").read_text())
    assert (meta["version"], meta["commit"], meta["parent"], meta["files"]) == (1, commit, "", 6)
    assert meta["bytes"] > 0
    owner = cache.git.cells.sandbox.uid
    assert {path.lstat().st_uid for path in (tree, *tree.rglob("*"))} == {owner}
    assert await cache.get(commit) == cache.find(commit) == checkout
    assert cache.fills == 1


async def test_contents_are_those_of_the_commit_byte_by_byte(cache: Cache) -> None:
    attributes = (
        b"*.crlf text eol=crlf\n*.id ident\n*.utf working-tree-encoding=UTF-16\n"
        b"*.lfs filter=lfs diff=lfs -text\n*.auto text=auto\n*.old crlf\n"
    )
    contents = {
        b".gitattributes": attributes,
        b"a.crlf": b"1\n2\r\n",
        b"a.id": b"$Id$\n",
        b"a.utf": "ä\n".encode(),
        b"a.lfs": b"version https://git-lfs.github.com/spec/v1\n",
        b"a.auto": b"1\r\n",
        b"a.old": b"1\n",
    }
    tree = {name: Entry(FILE, content) for name, content in contents.items()}
    (top,) = (await cache.get(cache.store.commit(tree))).layers
    assert {os.fsencode(name): (top / name).read_bytes() for name in map(os.fsdecode, tree)} == (
        contents
    )


@pytest.mark.parametrize("layered", [False, True])
async def test_git_inside_starts_clean_and_leaves_the_checkout_alone(
    layered: bool, cache: Cache, tmp_path: Path
) -> None:
    tree = sized(100) | SAMPLE
    first = cache.store.commit(tree)
    checkout = await cache.get(first)
    if layered:
        tree = dict(tree)
        del tree[b"src/a.txt"], tree[b"src/\xff"]
        tree |= {b"README": Entry(FILE, b"HELLO\n"), b"new/file": Entry(FILE, b"new\n")}
        # One that says it is of the future.
        checkout = await cache.get(cache.store.commit(tree, 1 << 33))
        assert len(checkout.layers) == 2
    before = [stated(layer) for layer in checkout.layers]
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "up").mkdir()
    give(cache, upper, ".git/HEAD", "ref: refs/heads/x\n")
    give(cache, upper, ".git/refs/heads/x", f"{checkout.commit}\n")

    def inside(script: str) -> str:
        return in_overlay(cache, checkout, upper, "sh", "-ec", script)

    # It compares what stat says and does not read any file: what differs would be listed.
    assert inside("git diff-files") == ""
    index = (checkout.layers[0] / ".git" / "index").stat().st_mtime
    times = inside("git ls-files --debug | sed -n 's/ *mtime: *//p'").split()
    # Not so new that git would read the file all the same. Submodules have no time.
    assert max(float(time.split(":")[0]) for time in times) < index - 1
    # All are as old as the commit, but those of the commit that is from the future.
    assert len({time for time in times if time != "0:0"}) == len(checkout.layers)
    assert inside("git status --porcelain; git ls-files -o --exclude-standard") == ""
    assert inside("git write-tree").strip() == run_git(
        cache.store.path, "rev-parse", f"{checkout.commit}^{{tree}}"
    )
    assert inside("git fsck --strict --no-dangling 2>&1") == ""
    log = inside(
        "echo more >>README; rm link; mkdir d; echo x >d/y; git add -A;"
        "git commit -qm changed; git status --porcelain; git gc --quiet; git log --format=%s"
    )
    assert log.split() == ["changed", "x"]
    assert "README" in inside("git diff --name-only HEAD~")
    assert [stated(layer) for layer in checkout.layers] == before


@pytest.mark.parametrize("seed", range(8))
async def test_layers_show_what_a_plain_checkout_has(
    seed: int, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NEAR_SHARE", 0)  # However different, in so small a tree.
    chance = random.Random(seed)
    tree = randomly(chance)
    depths = []
    for step in range(9):
        commit = cache.store.commit(tree)
        checkout = await cache.get(commit)
        depths.append(len(checkout.layers))
        plain = cache.store.checked_out(commit, tmp_path / f"plain{step}")
        shown = json.loads(in_overlay(cache, checkout, tmp_path / f"upper{step}"))
        assert shown == seen(plain), (seed, step)
        assert is_clean(cache, checkout, tmp_path / f"clean{step}"), (seed, step)
        tree = changed(tree, chance)
    assert max(depths) > 1


def is_clean(cache: Cache, checkout: Checkout, upper: Path) -> bool:
    upper.mkdir()
    (upper / "up").mkdir()
    give(cache, upper, ".git/HEAD", f"{checkout.commit}\n")
    script = "git diff-files; git status --porcelain -uall --ignored"
    return in_overlay(cache, checkout, upper, "sh", "-ec", script) == ""


async def test_a_far_commit_is_no_layer(cache: Cache) -> None:
    tree = sized(40)
    await cache.get(cache.store.commit(tree))
    few = dict(list(tree.items())[10:])
    assert len((await cache.get(cache.store.commit(few))).layers) == 2
    many = dict(list(tree.items())[22:])
    assert len((await cache.get(cache.store.commit(many))).layers) == 1


async def test_layers_do_not_become_too_many(cache: Cache) -> None:
    tree = sized(40)
    depths = []
    for number in range(10):
        commit = cache.store.commit(tree | {b"n%d" % n: Entry(FILE, b"") for n in range(number)})
        depths.append(len((await cache.get(commit)).layers))
    assert max(depths) == 8


async def test_where_no_whiteout_can_be_made_all_files_are(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "mknod")

    monkeypatch.setattr(os, "mknod", refuse)
    tree = sized(40)
    await cache.get(cache.store.commit(tree))
    del tree[b"d0/e0/f0"]
    checkout = await cache.get(cache.store.commit(tree))
    assert len(checkout.layers) == 1
    assert len(cache.on_disk()) == 2


async def test_two_at_once_share_one_fill(cache: Cache) -> None:
    commit = cache.store.commit(sized(100))
    begun = asyncio.ensure_future(cache.git.cells.next("checkout-index"))
    first = asyncio.ensure_future(cache.get(commit))
    others = [asyncio.ensure_future(cache.get(commit)) for _ in range(5)]
    await begun
    first.cancel()
    assert len(set(await asyncio.gather(*others))) == 1
    with pytest.raises(asyncio.CancelledError):
        await first
    assert cache.fills == 1


async def test_a_fill_that_nobody_waits_for_leaves_nothing(cache: Cache) -> None:
    commit = cache.store.commit(sized(3000))
    begun = asyncio.ensure_future(cache.git.cells.next("checkout-index"))
    waiting = [asyncio.ensure_future(cache.get(commit)) for _ in range(2)]
    await begun
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    again = await cache.get(commit)
    await cache.checkouts.close()
    assert cache.on_disk() == [place(cache, commit)]
    assert len(list(again.layers[0].rglob("f*"))) == 3000


async def test_a_commit_that_is_none_leaves_nothing(cache: Cache) -> None:
    tree = run_git(cache.store.path, "rev-parse", f"{cache.store.commit(SAMPLE)}^{{tree}}")
    for commit in ("2" * 40, tree):
        with pytest.raises(RevisionNotFound):
            await cache.get(commit)
    assert cache.on_disk() == []


@pytest.mark.parametrize("name", [".git", ".GIT", "git~1", ".."])
async def test_paths_that_git_does_not_allow_are_told(name: str, cache: Cache) -> None:
    cache.store.commit({b"x/hooks": Entry(PROGRAM, b"#!/bin/sh\ntouch /tmp/no\n")})
    inner = run_git(cache.store.path, "rev-parse", "x^{tree}:x")
    tree = run_git(cache.store.path, "mktree", stdin=f"040000 tree {inner}\t{name}\n".encode())
    commit = run_git(cache.store.path, "commit-tree", "-m", "x", tree)
    with pytest.raises(PathForbidden) as caught:
        await cache.get(commit)
    assert caught.value.metadata["path"] == f"{name}/hooks"
    assert cache.on_disk() == []


async def test_a_path_that_is_too_long_for_the_disk_is_told(cache: Cache) -> None:
    with pytest.raises(PathForbidden) as caught:
        await cache.get(cache.store.commit({b"x" * 300: Entry(FILE, b"")}))
    assert "x" * 300 in caught.value.metadata["path"]
    assert cache.on_disk() == []


async def test_a_link_in_a_layer_leads_nowhere(cache: Cache, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    tree = sized(40) | {b"d/file": Entry(FILE, b"x"), b"d/gone": Entry(FILE, b"x")}
    await cache.get(cache.store.commit(tree))
    del tree[b"d/file"], tree[b"d/gone"]
    tree[b"d"] = Entry(LINK, os.fsencode(outside))
    link = await cache.get(cache.store.commit(tree))
    del tree[b"d"]
    tree[b"d/other"] = Entry(FILE, b"x")
    again = await cache.get(cache.store.commit(tree))
    assert (len(link.layers), len(again.layers)) == (2, 3)
    assert list(outside.iterdir()) == []


async def test_it_is_found_after_a_restart_and_what_is_half_made_is_not(cache: Cache) -> None:
    tree = sized(40)
    first = await cache.get(cache.store.commit(tree))
    second = await cache.get(cache.store.commit(tree | SAMPLE))
    assert second.layers[1:] == first.layers
    home = cache.root / "acme" / "key"
    (home / f".{'3' * 40}.abcd" / "tree").mkdir(parents=True)
    shutil.copytree(home / first.commit, home / ("4" * 40), symlinks=True)
    (home / ("5" * 40) / "tree").mkdir(parents=True)
    (cache.root / "acme" / ".other.abcd" / ("6" * 40)).mkdir(parents=True)
    await cache.again()
    assert cache.find(first.commit) == first
    assert cache.find(second.commit) == second
    assert cache.find("4" * 40) is None
    await cache.checkouts.close()
    assert cache.on_disk() == sorted(place(cache, one.commit) for one in (first, second))
    assert cache.fills == 2


async def test_a_layer_without_what_it_lies_on_is_no_checkout(cache: Cache) -> None:
    tree = sized(40)
    first = await cache.get(cache.store.commit(tree))
    second = await cache.get(cache.store.commit(tree | SAMPLE))
    (first.layers[0].parent / "meta.json").unlink()
    await cache.again()
    assert cache.find(second.commit) is None
    assert len((await cache.get(second.commit)).layers) == 1


async def test_the_least_recently_used_goes_first_and_what_is_used_never(cache: Cache) -> None:
    # So different that none is a layer over another.
    commits = [
        cache.store.commit({b"%d/%d" % (n, m): Entry(FILE, b"%d" % n) for m in range(9)})
        for n in range(4)
    ]
    for commit in commits:
        await cache.get(commit)
    size = json.loads((cache.root / place(cache, commits[0]) / "meta.json").read_text())["bytes"]
    assert cache.find(commits[0])
    shelf.note(cache.root / place(cache, commits[0]), time.time() + 60)
    await cache.again(size * 2)
    cache.used.append((cache.store.path, commits[1]))
    await cache.checkouts.trim()
    assert [bool(cache.find(commit)) for commit in commits] == [True, True, False, False]
    with cache.checkouts.held(cache.store.repository, commits[0]):
        await cache.get(commits[3])
        assert [bool(cache.find(commit)) for commit in commits] == [True, True, False, True]
    await cache.checkouts.trim()
    assert [bool(cache.find(commit)) for commit in commits] == [False, True, False, True]
    await cache.checkouts.close()
    assert cache.on_disk() == sorted(place(cache, commits[n]) for n in (1, 3))


async def test_what_used_layers_lie_on_stays(cache: Cache) -> None:
    tree = sized(40)
    first = await cache.get(cache.store.commit(tree))
    second = await cache.get(cache.store.commit(tree | SAMPLE))
    third = await cache.get(cache.store.commit(tree | SAMPLE | {b"x": Entry(FILE, b"x")}))
    assert len(third.layers) == 3
    await cache.again(limit=0)
    cache.used.append((cache.store.path, second.commit))
    await cache.checkouts.trim()
    found = [bool(cache.find(one.commit)) for one in (first, second, third)]
    assert found == [True, True, False]
    cache.used.clear()
    await cache.checkouts.trim()
    assert not cache.find(first.commit)
    assert not cache.find(second.commit)
    await cache.checkouts.close()
    assert list(cache.root.iterdir()) == []


async def test_what_is_forgotten_is_gone_and_a_fill_of_it_ends(cache: Cache) -> None:
    kept = await cache.get(cache.store.commit(SAMPLE))
    other = Store(cache.git, "other")
    stays = await cache.checkouts.get(other.repository, other.commit(SAMPLE))
    commit = cache.store.commit(sized(3000))
    begun = asyncio.ensure_future(cache.git.cells.next("checkout-index"))
    waiting = asyncio.ensure_future(cache.get(commit))
    await begun
    await cache.checkouts.forget(cache.store.repository)
    with pytest.raises(RevisionNotFound):
        await waiting
    assert cache.find(kept.commit) is None
    await cache.checkouts.close()
    assert cache.on_disk() == [f"acme/other/{stays.commit}"]


async def test_without_space_nothing_is_left(git: Parts, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user can mount no small disk")
    root = git.state / "git" / "checkouts"
    root.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], check=True)
    try:
        checkouts = Checkouts(root, git.cells, GIB, list)
        await checkouts.load()
        store = Store(git)
        small = await checkouts.get(store.repository, store.commit(sized(10)))
        for tree in (sized(10, 200_000), sized(3000)):
            with pytest.raises(DiskFull):
                await checkouts.get(store.repository, store.commit(tree))
            assert [path.name for path in root.glob("*/*/*")] == [small.commit]
        await checkouts.close()
    finally:
        await git.cells.__aexit__()
        subprocess.run(["umount", "-l", str(root)], check=True)
