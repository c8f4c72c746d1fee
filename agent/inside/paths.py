"""Finds files in the three folders of a workspace, and nowhere else.

Each step opens one directory by its parent's descriptor without following links; links are read
and followed here. So whatever a program renames meanwhile, nothing outside is reached.
"""

import errno
import os

ROOTS = (b"/workspace", b"/home/cove", b"/tmp")  # The sandbox's own.
"""Relative paths begin at the first."""

_MAX_LINKS = 40
_MAX_DEPTH = 256


class OutsideError(Exception):
    """The path, or a link on it, leads out."""


class Place:
    """A name in an open directory; close it."""

    def __init__(self, directory: int, name: bytes) -> None:
        self.directory = directory
        self.name = name
        """`.` for one of the roots themselves."""

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.directory)


def locate(path: bytes, *, follow: bool) -> Place:
    """The directory that holds the last name of `path`, and that name, which need not exist.

    With `follow` the name is no symlink. Raises OSError, OutsideError.
    """
    if not path or b"\0" in path or len(path) > 4096:
        raise OSError(errno.EINVAL, "not a path")
    root, todo = _begin(path)
    stack = [_enter(root, None)]
    links = 0
    try:
        while todo:
            part = todo.pop(0)
            if part == b"..":
                if len(stack) == 1:
                    raise OutsideError
                os.close(stack.pop())
                continue
            target = _link(part, stack[-1]) if follow or todo else b""
            if target:
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if target.startswith(b"/"):
                    root, front = _begin(target)
                    stack.append(_enter(root, None))
                    _close(stack[:-1])
                    del stack[:-1]
                else:
                    front = _parts(target)
                todo = front + todo
            elif not todo:
                return Place(stack.pop(), part)
            elif len(stack) >= _MAX_DEPTH:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            else:
                stack.append(_enter(part, stack[-1]))
        return Place(stack.pop(), b".")
    finally:
        _close(stack)


def _begin(path: bytes) -> tuple[bytes, list[bytes]]:
    if not path.startswith(b"/"):
        return ROOTS[0], _parts(path)
    for root in ROOTS:
        if path == root or path.startswith(root + b"/"):
            return root, _parts(path[len(root) :])
    raise OutsideError


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _enter(name: bytes, parent: int | None) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=parent)


def _link(name: bytes, parent: int) -> bytes:
    """Where a symlink leads; empty when it is none, or nothing is there."""
    try:
        return os.readlink(name, dir_fd=parent)
    except FileNotFoundError:
        return b""
    except OSError as error:
        if error.errno == errno.EINVAL:
            return b""
        raise


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
