"""What is judged sound without git, git's own check takes as well."""

import re
import subprocess
import zlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
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
from services.git.within.sound import DoubtfulError
from tests.git.parts import make_source, run_git

_NUMBERS = {b"commit": 1, b"tree": 2, b"blob": 3}
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
_HOWS = st.sampled_from(["sorted"] * 8 + ["as it comes", "zeros"])
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
    parts = [b"PACK\0\0\0\2", len(items).to_bytes(4, "big")]
    for kind, data in items:
        first, rest = _NUMBERS[kind] << 4 | len(data) & 15, len(data) >> 4
        while rest:
            parts.append(bytes([first | 0x80]))
            first, rest = rest & 0x7F, rest >> 7
        parts += [bytes([first]), zlib.compress(data)]
    body = b"".join(parts)
    return body + sha1(body, usedforsecurity=False).digest()


def text(data: bytes) -> str:
    return b64encode(data).decode()


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
            sound.check(sound.read(text(pack([*items.values()]))), commit, objects, old)
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
    read = sound.read(text(pack(items)))
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
    items = sound.read(text(pack([(b"blob", b"new\n"), (b"tree", top)])))
    with pytest.raises(DoubtfulError):
        sound.check(items, commit_of(object_id(b"tree", top), old), objects, old)


def test_an_object_that_nothing_names_is_in_doubt(store: tuple[Path, Objects, str]) -> None:
    _, objects, old = store
    top = format_tree({b"b": Entry(FILE, object_id(b"blob", b"new\n"))})
    items = sound.read(text(pack([(b"blob", b"new\n"), (b"blob", b"x"), (b"tree", top)])))
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


@given(where=st.integers(0, 400), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_pack_is_in_doubt(where: int, bit: int, cut: bool) -> None:
    data = bytearray(pack([(b"blob", b"content" * 40), (b"tree", b"")]))
    where %= len(data)
    if cut:
        del data[where:]
    else:
        data[where] ^= 1 << bit
    with pytest.raises(DoubtfulError):
        sound.read(text(bytes(data)))


def test_more_than_it_may_hold_is_in_doubt() -> None:
    large = pack([(b"blob", b"\0" * (sound.MAX_BYTES + 1))])
    many = pack([(b"blob", b"%d" % number) for number in range(sound.MAX_OBJECTS + 1)])
    for data in (large, many, pack([(b"commit", b"x")]), b"", b"PACK"):
        with pytest.raises(DoubtfulError):
            sound.read(text(data))
    with pytest.raises(DoubtfulError):
        sound.read("no base64")
