"""Commits of any content, made fast, in a repository as the service has it."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from services.git.repository import Repository
from tests.git.parts import Parts, run_git

FILE, PROGRAM, LINK, SUBMODULE = 0o100644, 0o100755, 0o120000, 0o160000
TIME = 1_600_000_000


class Entry(NamedTuple):
    """One path of a commit. The content of a submodule is a commit id."""

    mode: int
    content: bytes


Tree = dict[bytes, Entry]


class Store:
    """A bare repository among those of the service."""

    def __init__(self, git: Parts, key: str = "key") -> None:
        self.path = git.state / "git" / "repositories" / "acme" / f"{key}.git"
        self.path.mkdir(parents=True)
        run_git(self.path, "init", "-q", "--bare")
        self.repository = Repository(self.path, git.cells)

    def commit(self, tree: Mapping[bytes, Entry], time: int = TIME) -> str:
        """A commit without parents."""
        stream = [b"reset refs/heads/x\ncommit refs/heads/x\n"]
        stream.append(b"committer Ada <ada@example.org> %d +0000\ndata 1\nx\n" % time)
        for path, (mode, content) in tree.items():
            name = b'"%s"' % b"".join(b"\\%03o" % byte for byte in path)
            if mode == SUBMODULE:
                stream.append(b"M 160000 %s %s\n" % (content, name))
            else:
                stream.append(b"M %o inline %s\ndata %d\n" % (mode, name, len(content)))
                stream.append(content + b"\n")
        run_git(self.path, "update-ref", "-d", "refs/heads/x")
        run_git(self.path, "fast-import", "--quiet", "--force", stdin=b"".join(stream))
        return run_git(self.path, "rev-parse", "refs/heads/x")

    def checked_out(self, commit: str, path: Path) -> Path:
        """What plain git makes of a commit."""
        run_git(self.path, "worktree", "add", "-q", "--detach", str(path), commit)
        return path


def sized(count: int, size: int = 200) -> Tree:
    """That many files."""
    return {
        b"d%d/e%d/f%d" % (n % 23, n % 7, n): Entry(FILE, (b"%d\n" % n) * (size // 4))
        for n in range(count)
    }


_NAMES = (b"a", b"b", b"c", b"\xff\xfe", b"\xc3\xa4", b"-x", b"new\nline", b"q\"'\\", b".gitignore")


def randomly(chance: random.Random) -> Tree:
    """A tree with few names, so that they collide."""
    tree: Tree = {}
    for _ in range(chance.randrange(1, 25)):
        _put(tree, _path(chance), _entry(chance))
    return tree or {b"a": Entry(FILE, b"")}


def changed(tree: Tree, chance: random.Random) -> Tree:
    """The tree after some changes of every kind."""
    tree = dict(tree)
    for _ in range(chance.randrange(1, 6)):
        paths = sorted(tree)
        path = chance.choice(paths) if paths else b"a"
        match chance.randrange(6):
            case 0:
                tree.pop(path, None)
            case 1:  # A directory with all below it.
                top = path.rpartition(b"/")[0] or path
                tree = {p: e for p, e in tree.items() if p != top and not p.startswith(top + b"/")}
            case 2:  # A file becomes a directory, or a directory a file.
                _put(tree, path + b"/" + chance.choice(_NAMES), _entry(chance))
            case 3:
                _put(tree, path.rpartition(b"/")[0] or path, _entry(chance))
            case 4 if path in tree:
                _put(tree, _path(chance), tree.pop(path))
            case _:
                _put(tree, _path(chance), _entry(chance))
    return tree


def _path(chance: random.Random) -> bytes:
    return b"/".join(chance.choice(_NAMES) for _ in range(chance.randrange(1, 5)))


def _entry(chance: random.Random) -> Entry:
    text = b"%d" % chance.randrange(1000)
    return chance.choice(
        [
            *(Entry(FILE, text + b"\r\n") for _ in range(4)),
            *(Entry(PROGRAM, text) for _ in range(2)),
            *(Entry(LINK, chance.choice([b"a", b"/nowhere/file", b"..", text])) for _ in range(2)),
            Entry(SUBMODULE, b"%040d" % (1 + chance.randrange(1000))),
        ]
    )


def _put(tree: Tree, path: bytes, entry: Entry) -> None:
    """Put it there, in place of what hinders."""
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        tree.pop(b"/".join(parts[:count]), None)
    for other in [other for other in tree if other.startswith(path + b"/")]:
        del tree[other]
    if parts[-1] == b".gitignore" and entry.mode == LINK:
        entry = Entry(FILE, b"*\n")
    tree[path] = entry
