"""What is judged sound without git, git's own check takes as well."""

import re
import subprocess
import zlib
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.git.within import sound
from services.git.within.objects import (
    FILE,
    GITLINK,
    LINK,
    PROGRAM,
    TREE,
    Entry,
    Objects,
    format_tree,
    object_id,
)
from services.git.within.pack import HEAD, Item, header, write
from services.git.within.sound import DoubtfulError
from tests.git.parts import make_source, run_git

_PEOPLE = "author A <a@b> 1 +0000\ncommitter C <c@d> 1 +0000\n"
_NAMES = st.sampled_from(
    [
        *(b"a", b"b", b"a.b", b"a-", b"ab", b"A", b".", b"..", b"", b".git", b".GIT", b"git~1"),
        *(b".gitmodules", b".gitignore", b".gitattributes", b"GITMOD~1", b"a\\.git", b"a:b"),
        *(b".g\xe2\x80\x8cit", b"\xff", b".git ", b"a/b", b"x" * 300),
    ]
)
_MODES = st.sampled_from([FILE, FILE, FILE, PROGRAM, LINK, GITLINK, TREE, 0o100664, 0o100600, 0])
_BLOBS = st.tuples(_MODES, st.binary(max_size=20))
_HOWS = st.sampled_from(["sorted"] * 8 + ["as it comes", "zeros", "broken off"])
_Node = tuple[int, bytes] | tuple[str, list[tuple[bytes, Any]]]


def _folders(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(_HOWS, st.lists(st.tuples(_NAMES, below), min_size=1, max_size=4))


_TREES = _folders(st.recursive(_BLOBS, _folders, max_leaves=6))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[Path, Objects, str]]:
    """A repository, a reader of it, and its one commit."""
    source = make_source(tmp_path / "source", {"a": "old\n"})
    path, commit = source / ".git", run_git(source, "rev-parse", "HEAD")
    objects = Objects({"PATH": "/usr/bin:/bin", "GIT_DIR": str(path)})
    try:
        yield path, objects, commit
    finally:
        objects.close()


def pack(items: Sequence[tuple[bytes, bytes]]) -> bytes:
    parts = [HEAD, len(items).to_bytes(4, "big")]
    parts += [header(kind, len(data)) + zlib.compress(data) for kind, data in items]
    body = b"".join(parts)
    return body + sha1(body, usedforsecurity=False).digest()


def text(items: Iterable[tuple[bytes, bytes]]) -> list[Any]:
    """As the cell tells it."""
    return [[kind.decode(), data.decode("latin-1")] for kind, data in items]


def commit_of(tree: str, parent: str) -> bytes:
    return f"tree {tree}\nparent {parent}\n{_PEOPLE}\nround\n".encode()


def put(items: dict[str, tuple[bytes, bytes]], node: _Node) -> Entry:
    """Add what a node is made of, well or not, and the line of it."""
    how, content = node
    if isinstance(content, bytes):
        assert isinstance(how, int)
        identifier = object_id(b"blob", content)
        items[identifier] = b"blob", content
        return Entry(how, identifier)
    lines = [(name, put(items, below)) for name, below in content]
    if how == "sorted":
        data = format_tree(dict(lines))
    else:
        form = b"%06o %s\0" if how == "zeros" else b"%o %s\0"
        data = b"".join(form % (one.mode, name) + bytes.fromhex(one.id) for name, one in lines)
        data = data[:-3] if how == "broken off" else data
    identifier = object_id(b"tree", data)
    items[identifier] = b"tree", data
    return Entry(TREE, identifier)


def test_what_is_sound_git_takes_too(store: tuple[Path, Objects, str]) -> None:
    path, objects, old = store
    outcomes = set()

    @settings(max_examples=200, deadline=None)
    @given(node=_TREES)
    def check(node: _Node) -> None:
        items: dict[str, tuple[bytes, bytes]] = {}
        commit = commit_of(put(items, node).id, old)
        try:
            sound.check(sound.read(text(items.values())), commit, objects, old)
        except DoubtfulError:
            outcomes.add("in doubt")
            return
        outcomes.add("sound")
        taken = subprocess.run(
            ["git", "--git-dir", str(path), "unpack-objects", "--strict", "-q", "-n"],
            input=pack([*items.values(), (b"commit", commit)]),
            capture_output=True,
            check=False,
        )
        assert taken.returncode == 0, taken.stderr

    check()
    assert outcomes == {"sound", "in doubt"}


def test_a_plain_change_is_sound(store: tuple[Path, Objects, str]) -> None:
    _, objects, old = store
    was = objects.tree(objects.tree_of(old))
    below = format_tree({b"new": Entry(PROGRAM, object_id(b"blob", b"new\n"))})
    top = format_tree({**was, b"d": Entry(TREE, object_id(b"tree", below))})
    items = [(b"blob", b"new\n"), (b"tree", below), (b"tree", top)]
    read = sound.read(text(items))
    assert list(read.values()) == items
    sound.check(read, commit_of(object_id(b"tree", top), old), objects, old)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        (b".git", Entry(FILE, object_id(b"blob", b"new\n"))),
        (b".gitmodules", Entry(FILE, object_id(b"blob", b"new\n"))),
        (b"missing", Entry(FILE, "1" * 40)),
        (b"nothing", Entry(GITLINK, "0" * 40)),
        (b"a tree?", Entry(TREE, object_id(b"blob", b"new\n"))),
        (b"mode", Entry(0o100664, object_id(b"blob", b"new\n"))),
    ],
)
def test_what_git_may_mind_is_in_doubt(
    store: tuple[Path, Objects, str], name: bytes, entry: Entry
) -> None:
    _, objects, old = store
    top = format_tree({b"b": Entry(FILE, object_id(b"blob", b"new\n")), name: entry})
    items = sound.read(text([(b"blob", b"new\n"), (b"tree", top)]))
    with pytest.raises(DoubtfulError):
        sound.check(items, commit_of(object_id(b"tree", top), old), objects, old)


@pytest.mark.parametrize("length", [0, 2, 3, 19])
@pytest.mark.parametrize("mode", [b"100644", b"40000", b"160000"])
def test_a_tree_that_breaks_off_is_in_doubt(
    store: tuple[Path, Objects, str], mode: bytes, length: int
) -> None:
    _, objects, old = store
    top = mode + b" x\0" + bytes.fromhex(objects.tree_of(old))[:length]
    items = sound.read(text([(b"tree", top)]))
    with pytest.raises(DoubtfulError, match="not as git writes"):
        sound.check(items, commit_of(object_id(b"tree", top), old), objects, old)


def test_trees_that_are_looked_at_again_and_again_are_in_doubt(
    store: tuple[Path, Objects, str],
) -> None:
    """Many directories become one and the same, which is large."""
    path, objects, old = store
    blob = objects.tree(objects.tree_of(old))[b"a"]
    files = {b"%d" % number: blob for number in range(200)}
    trees = [format_tree({b"%d" % number: blob}) for number in range(200)]
    former = {b"d%d" % n: Entry(TREE, object_id(b"tree", data)) for n, data in enumerate(trees)}
    made = [*trees, format_tree(former)]
    write(str(path / "objects"), {object_id(b"tree", one): Item(b"tree", one) for one in made})
    first = run_git(path, "commit-tree", "-m", "x", object_id(b"tree", made[-1]))
    same = format_tree(files)
    top = format_tree(dict.fromkeys(former, Entry(TREE, object_id(b"tree", same))))
    items = sound.read(text([(b"tree", same), (b"tree", top)]))
    with pytest.raises(DoubtfulError, match="very many"):
        sound.check(items, commit_of(object_id(b"tree", top), first), objects, first)


def test_an_object_that_nothing_names_is_in_doubt(store: tuple[Path, Objects, str]) -> None:
    _, objects, old = store
    top = format_tree({b"b": Entry(FILE, object_id(b"blob", b"new\n"))})
    items = sound.read(text([(b"blob", b"new\n"), (b"blob", b"x"), (b"tree", top)]))
    with pytest.raises(DoubtfulError, match=re.escape("nothing names")):
        sound.check(items, commit_of(object_id(b"tree", top), old), objects, old)


@pytest.mark.parametrize(
    "commit",
    [
        b"tree {}\nparent {}\nauthor A <a@b> 1 +0000\n\nx\n",
        b"tree {}\nparent {}\nauthor A <a@b> 1 +0000\ncommitter C <c<d> 1 +0000\n\nx\n",
        b"tree {}\nparent {}\nauthor A <a@b> 1 +0000\ncommitter C <c@d> 1 +0000\n\nx\0y\n",
    ],
)
def test_a_commit_that_git_may_mind_is_in_doubt(
    store: tuple[Path, Objects, str], commit: bytes
) -> None:
    _, objects, old = store
    made = commit.replace(b"{}", objects.tree_of(old).encode(), 1).replace(b"{}", old.encode())
    with pytest.raises(DoubtfulError):
        sound.check({}, made, objects, old)


@pytest.mark.parametrize(
    "told",
    [
        [["blob", "\0" * (sound.MAX_BYTES + 1)]],
        [["blob", str(number)] for number in range(sound.MAX_OBJECTS + 1)],
        [["commit", "x"]],
        [["blob", "\u0100"]],
        [["blob", 1]],
        [["blob"]],
        [None],
        {},
        None,
    ],
)
def test_what_a_cell_may_not_tell_is_in_doubt(told: Any) -> None:
    with pytest.raises(DoubtfulError):
        sound.read(told)


def test_a_pack_is_one_that_git_reads(store: tuple[Path, Objects, str]) -> None:
    path, objects, _ = store
    contents = [b"", b"x" * 15, b"y" * 16, b"z" * 5000, *(b"%d" % n for n in range(300))]
    items = {object_id(b"blob", data): Item(b"blob", data) for data in contents}
    write(str(path / "objects"), items)
    [made] = (path / "objects" / "pack").glob("*.idx")
    run_git(path, "verify-pack", str(made))
    run_git(path, "fsck", "--strict")
    assert {name: objects.blob(name) for name in items} == {n: i.data for n, i in items.items()}
    assert {one.suffix for one in made.parent.iterdir()} == {".pack", ".idx"}
