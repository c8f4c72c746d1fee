"""Snapshots: directories that are copied before they are changed."""

import filecmp
import fnmatch
import os
import shutil
import stat
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.drivers.dagger_double.values import Changeset, EngineError

_MISSING = "failed to lstat {}: no such file or directory"


class Snapshots:
    """Below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def empty(self) -> Path:
        fresh = self._root / uuid.uuid4().hex
        fresh.mkdir()
        return fresh

    def changed(self, before: Path | None, change: Callable[[Path], object]) -> Path:
        """A copy with a change. When that fails there is none."""
        fresh = self.empty()
        try:
            if before is not None:
                merge(before, fresh)
            change(fresh)
        except BaseException:
            remove(fresh)
            raise
        return fresh


def base(folder: Path) -> None:
    """What an image has: this host's programs, to be bound where commands run."""
    for name in ("usr", "proc", "dev", "etc", "root", "tmp"):
        (folder / name).mkdir()
    for name in ("bin", "lib", "lib64", "sbin"):
        (folder / name).symlink_to(f"usr/{name}")


def inside(root: Path | None, path: str) -> Path:
    """Where a path of a container is on this host; no link is followed out of it."""
    if root is None:
        raise EngineError(_MISSING.format(path))
    found = Path(os.path.normpath("/" + path.lstrip("/"))).relative_to("/")
    at = root
    for name in found.parts[:-1]:
        at /= name
        if at.is_symlink():
            at = root / str(at.readlink()).lstrip("/")
    return at / found.name if found.parts else root


def existing(root: Path | None, path: str) -> Path:
    found = inside(root, path)
    if not os.path.lexists(found):
        raise EngineError(_MISSING.format(path))
    return found


def merge(source: Path, target: Path, exclude: Iterable[str] = ()) -> None:
    """Copy what is in a directory into another one, over what is there."""
    patterns = tuple(exclude)
    if not patterns:
        target.mkdir(parents=True, exist_ok=True)
        copy = ["cp", "-a", "--remove-destination", "--", f"{source}/.", str(target)]
        subprocess.run(copy, check=True, capture_output=True)
        return
    shutil.copytree(
        source,
        target,
        symlinks=True,
        dirs_exist_ok=True,
        ignore=lambda _, names: {
            name for name in names if any(fnmatch.fnmatch(name, each) for each in patterns)
        },
    )


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def compare(before: Path | None, after: Path | None) -> Changeset:
    old, new = dict(_entries(before)), dict(_entries(after))
    removed = [path for path in old if path not in new and not _below(path, old, new)]
    added = [path for path in new if path not in old]
    both = [path for path in new if path in old]
    modified = [path for path in both if not path.endswith("/") and not _same(old[path], new[path])]
    return Changeset(before, after, tuple(added), tuple(modified), tuple(sorted(removed)))


def layer(found: Changeset, target: Path) -> None:
    """Only what was added or modified."""
    assert found.after is not None
    for path in sorted((*found.added, *found.modified)):
        source, copy = found.after / path, target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            copy.mkdir(exist_ok=True)
            copy.chmod(stat.S_IMODE(source.stat().st_mode))
        else:
            shutil.copy2(source, copy, follow_symlinks=False)


def _below(path: str, old: dict[str, Path], new: dict[str, Path]) -> bool:
    """Whether a directory that is told of as removed holds it."""
    parts = path.rstrip("/").split("/")
    parents = ("/".join(parts[:number]) + "/" for number in range(1, len(parts)))
    return any(parent in old and parent not in new for parent in parents)


def _entries(root: Path | None) -> Iterator[tuple[str, Path]]:
    """By relative path; of directories with a slash at the end."""
    if root is None:
        return
    for folder, directories, files in os.walk(root):
        at = Path(folder)
        for name in list(directories):
            path = at / name
            if path.is_symlink():
                yield str(path.relative_to(root)), path
            else:
                yield f"{path.relative_to(root)}/", path
        for name in files:
            yield str((at / name).relative_to(root)), at / name


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        both = one.is_symlink() and other.is_symlink()
        return both and one.readlink() == other.readlink()
    if one.stat().st_mode != other.stat().st_mode:
        return False
    return filecmp.cmp(one, other, shallow=False)
