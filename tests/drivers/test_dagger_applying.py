"""What a command made comes into the worktree, however deep, and closed to whom."""

import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engines.dagger import applying

DEEP, TOO_DEEP = 250, 600
SPARE = 2 * DEEP + 20
"""Descriptors that there are for it."""
ORDINARY = 65533


@contextmanager
def few_descriptors() -> Iterator[None]:
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(free := os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + SPARE, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@contextmanager
def ordinary(*folders: Path) -> Iterator[None]:
    """As a user who may do what permissions say."""
    if os.geteuid() != 0:
        yield
        return
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, ORDINARY, ORDINARY, follow_symlinks=False)
    os.setegid(ORDINARY)
    os.seteuid(ORDINARY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def deep(folder: Path, content: bytes, levels: int = DEEP) -> None:
    """A file far below; no path reaches it."""
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 8, dir_fd=here)
        below = os.open("d" * 8, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, content)
    os.close(file)
    os.close(here)


def bottom(folder: Path) -> bytes:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(DEEP):
        below = os.open("d" * 8, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open("file", os.O_RDONLY, dir_fd=here)
    os.close(here)
    try:
        return os.read(file, 100)
    finally:
        os.close(file)


@pytest.mark.long
def test_it_may_be_as_deep_as_it_likes(tmp_path: Path) -> None:
    changes, tree = tmp_path / "changes", tmp_path / "tree"
    tree.mkdir()
    deep(changes, b"content")
    with few_descriptors():
        applying.apply(changes, (), tree)
    assert bottom(tree) == b"content"
    with few_descriptors():
        applying.apply(tmp_path / "none", ["d" * 8], tree)
        applying.remove(changes)
    assert list(tree.iterdir()) == []
    assert not changes.exists()


@pytest.mark.long
def test_what_is_too_deep_is_not_brought_in_at_all(tmp_path: Path) -> None:
    changes, tree = tmp_path / "changes", tmp_path / "tree"
    tree.mkdir()
    deep(changes, b"content", TOO_DEEP)
    (changes / "file").write_text("content")
    with few_descriptors(), pytest.raises(OSError, match="too deep"):
        applying.apply(changes, (), tree)
    assert list(tree.iterdir()) == []
    applying.remove(changes)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """That an ordinary user reaches."""
    folder = Path(tempfile.mkdtemp(prefix="cove-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    applying.remove(folder)


def test_folders_that_are_closed_to_their_owner_are_brought_in(open_folder: Path) -> None:
    changes, tree = open_folder / "changes", open_folder / "tree"
    for folder, name in ((tree, "old"), (changes, "new")):
        (folder / "closed" / "below").mkdir(parents=True)
        (folder / "closed" / name).write_text(name)
        (folder / "closed" / "below" / name).write_text(name)
    with ordinary(open_folder):
        for folder in (tree, changes):
            (folder / "closed" / "below").chmod(0o555)
            (folder / "closed").chmod(0o555)
        applying.apply(changes, ["closed/old"], tree)
        closed = tree / "closed"
        assert sorted(each.name for each in closed.iterdir()) == ["below", "new"]
        assert sorted(each.name for each in (closed / "below").iterdir()) == ["new", "old"]
        assert stat.S_IMODE(closed.stat().st_mode) == 0o555
        assert stat.S_IMODE((closed / "below").stat().st_mode) == 0o555
        applying.apply(open_folder / "none", ["closed"], tree)
        assert list(tree.iterdir()) == []
        applying.remove(changes)
        assert not changes.exists()
