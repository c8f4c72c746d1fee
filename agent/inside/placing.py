"""Puts what was unpacked into its place: all at once where nothing is, else name by name.

What cannot go together, as a file in the place of a directory, is seen before anything is moved.
"""

import errno
import os
import stat
from _collections_abc import Iterator

from agent.inside import system
from agent.inside.paths import Place

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o755


class ConflictError(Exception):
    """Something of another kind is there. Holds its path below the place."""

    def __init__(self, name: bytes) -> None:
        super().__init__("something of another kind is there")
        self.name = name


class Placer:
    """Moves a stage into `target`, a name which no link is behind."""

    def __init__(self, stage: Place, target: Place) -> None:
        self._stage = stage
        self._target = target
        self.placed = 0
        """Entries that were moved one by one."""

    def run(self) -> None:
        """Raises OSError, ConflictError; after the latter nothing has been moved."""
        stage, target = self._stage, self._target
        os.chmod(stage.name, _MODE, dir_fd=stage.directory)
        try:
            system.rename_exclusive(stage.name, stage.directory, target.name, target.directory)
        except FileExistsError:
            self._merge()
        except OSError as error:  # `.`: one of the roots.
            if error.errno not in (errno.EBUSY, errno.EINVAL, errno.EXDEV):
                raise
            self._merge()

    def _merge(self) -> None:
        source = os.open(self._stage.name, _FOLDER, dir_fd=self._stage.directory)
        try:
            try:
                into = os.open(self._target.name, _FOLDER, dir_fd=self._target.directory)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise ConflictError(b"") from None
                raise
            try:
                _check(source, into, b"")
                self._move(source, into)
            finally:
                os.close(into)
        finally:
            os.close(source)
        os.rmdir(self._stage.name, dir_fd=self._stage.directory)

    def _move(self, source: int, into: int) -> None:
        for name in _names(source):
            try:
                system.rename_exclusive(name, source, name, into)
                self.placed += 1
                continue
            except FileExistsError:
                pass
            if _is_folder(name, source):
                with _both(name, source, into) as (inner, there):
                    self._move(inner, there)
                os.rmdir(name, dir_fd=source)
            else:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=into)
                self.placed += 1


class _both:  # noqa: N801 - used as a function; contextlib costs more than this.
    """The directory of one name in two directories."""

    def __init__(self, name: bytes, source: int, into: int) -> None:
        self._source = os.open(name, _FOLDER, dir_fd=source)
        try:
            self._into = os.open(name, _FOLDER, dir_fd=into)
        except BaseException:
            os.close(self._source)
            raise

    def __enter__(self) -> tuple[int, int]:
        return self._source, self._into

    def __exit__(self, *_: object) -> None:
        os.close(self._source)
        os.close(self._into)


def _check(source: int, into: int, prefix: bytes) -> None:
    """Raises ConflictError where a directory would meet something else, or a mount."""
    device = os.fstat(into).st_dev
    for name in _names(source):
        try:
            there = os.stat(name, dir_fd=into, follow_symlinks=False)
        except FileNotFoundError:
            continue
        folder = _is_folder(name, source)
        if folder != stat.S_ISDIR(there.st_mode) or (folder and there.st_dev != device):
            raise ConflictError(prefix + name)
        if folder:
            with _both(name, source, into) as (inner, below):
                _check(inner, below, prefix + name + b"/")


def _is_folder(name: bytes, folder: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _names(folder: int) -> Iterator[bytes]:
    yield from sorted(os.fsencode(name) for name in os.listdir(folder))
