"""Lets the git inside follow a commit that was made outside: the branch, and the index, no file.

Runs in a child of the agent that nothing waits for. What the workspace has at .git is believed
by nobody else: at worst it is the workspace's own that goes wrong.
"""

import os
import time
from _collections_abc import Iterator  # `collections` takes long to load.

HEAD = b"/.cove/git/head"
"""What git outside says: one JSON object of `branch`, `from` (empty: it was none) and `to`.

`before` may name earlier tips, the latest first, from which only commits outside led to `from`.
"""
GIT_DIR = b"/workspace/.git"
FOLLOWED = GIT_DIR + b"/cove-followed"
"""What was said last and is settled, so that what the inside undoes afterwards stays undone."""

DONE, BROKEN, AGAIN = 0, 1, 2
"""How it ended. AGAIN: something inside holds a lock, another time it may work."""

_MOST = 4096
"""Bytes that are believed to be something that git says."""
_GITS = (b"/usr/local/bin/git", b"/usr/bin/git", b"/bin/git")
_NONE = "0" * 40
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_HEX = frozenset("0123456789abcdef")
_LOOK = 0.02
_ENV = {
    b"PATH": b"/usr/local/bin:/usr/bin:/bin",
    b"HOME": b"/nonexistent",
    b"LC_ALL": b"C",
    b"GIT_DIR": GIT_DIR,
    b"GIT_WORK_TREE": b"/workspace",
    b"GIT_CONFIG_NOSYSTEM": b"1",
    b"GIT_CONFIG_GLOBAL": b"/dev/null",
    b"GIT_TERMINAL_PROMPT": b"0",
    b"GIT_COMMITTER_NAME": b"Cove",
    b"GIT_COMMITTER_EMAIL": b"cove@localhost",
}
_SET = (b"-c", b"core.hooksPath=/dev/null", b"-c", b"core.fsmonitor=false")


def read(path: bytes) -> bytes:
    """A small regular file; empty when it is anything else. Never waits."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
    except OSError:
        return b""
    try:
        data = os.read(descriptor, _MOST + 1)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return data if len(data) <= _MOST else b""


def follow(said: bytes, patience: float) -> int:
    """Do what `said` asks, for `patience` seconds where something is locked. Says how it ended."""
    found = _parsed(said)
    program = next((path for path in _GITS if os.access(path, os.X_OK)), None)
    if found is None or program is None or not os.path.isdir(GIT_DIR):
        return BROKEN
    deadline = time.monotonic() + patience
    ref, tips, new = found
    if (earlier := _parsed(read(FOLLOWED))) and earlier[0] == ref and earlier[2] in tips:
        tips = tips[: tips.index(earlier[2]) + 1]  # What is older was left, and come back to.
    following = _Follow(program, ref, tips, new)
    while (ended := following.attempt()) == AGAIN and time.monotonic() < deadline:
        time.sleep(_LOOK)
    if ended == DONE:
        _note(said)
    return ended


def _parsed(said: bytes) -> tuple[str, list[str], str] | None:
    """The ref, the tips from which it may be moved, and to which; None when it is nonsense."""
    import json  # Not the agent's: this is a child of it.

    try:
        values = json.loads(said)
        branch, new = values["branch"], values["to"]
        tips = [values["from"], *values.get("before", [])]
        named = branch and "\0" not in branch and f"refs/heads/{branch}".isprintable()
        ids = all(len(each) in (0, 40) and set(each) <= _HEX for each in (*tips, new))
        fits = named and ids and new and _NONE not in (*tips, new)  # It would remove the branch.
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (f"refs/heads/{branch}", tips, new) if fits else None


def _note(said: bytes) -> None:
    writing = FOLLOWED + b".new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(writing, flags, 0o644)
    os.write(descriptor, said)
    os.close(descriptor)
    os.rename(writing, FOLLOWED)  # pathlib takes long to load.


class _Follow:
    """Every step may be repeated."""

    def __init__(self, program: bytes, ref: str, tips: list[str], new: str) -> None:
        self._program = program
        self._ref = ref
        self._tips = tips
        self._new = new

    def attempt(self) -> int:
        code, said = self._git("rev-parse", "--verify", "--quiet", self._ref)
        if code not in (0, 1):
            return BROKEN
        current = said.strip().decode() if code == 0 else ""
        if current == self._new:  # It was killed after that, or the inside has come there itself.
            return self._index(self._tips[-1])
        return self._move(current) if current in self._tips else DONE

    def _move(self, old: str) -> int:
        """Compare and swap."""
        why = ("-m", "commit: outside of the sandbox")
        if self._git("update-ref", *why, self._ref, self._new, old or _NONE)[0] == 0:
            return self._index(old)
        known = self._git("cat-file", "-e", f"{self._new}^{{commit}}")[0] == 0
        return AGAIN if known else BROKEN

    def _index(self, old: str) -> int:
        """What the commit changed is in the index as it is in the commit; all else stays staged."""
        _, head = self._git("symbolic-ref", "--quiet", "HEAD")
        if head.strip().decode(errors="replace") != self._ref:
            return DONE
        if not os.path.lexists(GIT_DIR + b"/index"):
            return AGAIN if self._git("read-tree", self._new)[0] else DONE
        flags = ("-r", "-z", "--no-renames", "--no-abbrev", "--ignore-submodules=none")
        code, changes = self._git("diff-tree", *flags, old or _EMPTY_TREE, self._new)
        if code:
            return BROKEN
        entries = b"".join(_entries(changes))
        return AGAIN if self._git("update-index", "-z", "--index-info", feed=entries)[0] else DONE

    def _git(self, *arguments: str, feed: bytes = b"") -> tuple[int, bytes]:
        """Exit status and output. Both ways through memory, so that neither side waits."""
        given, told = (os.memfd_create("git", os.MFD_CLOEXEC) for _ in range(2))
        try:
            for start in range(0, len(feed), 1 << 20):
                os.write(given, feed[start : start + (1 << 20)])
            os.lseek(given, 0, os.SEEK_SET)
            argv = [b"git", *_SET, *(os.fsencode(each) for each in arguments)]
            files = [(os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, told, 1)]
            pid = os.posix_spawn(self._program, argv, _ENV, file_actions=files)
            _, status = os.waitpid(pid, 0)
            output = os.pread(told, os.fstat(told).st_size, 0)
        finally:
            os.close(given)
            os.close(told)
        return os.waitstatus_to_exitcode(status), output


def _entries(changes: bytes) -> Iterator[bytes]:
    """Of `diff-tree -z` what `update-index -z --index-info` takes, what is removed first.

    A file may be in the way of a directory, or the other way round.
    """
    fields = changes.split(b"\0")
    pairs = list(zip(fields[0::2], fields[1::2], strict=False))
    for removed in (True, False):
        for change, path in pairs:
            _, mode, _, to, kind = change.split(b" ")
            if (kind == b"D") is removed:
                yield b"%s %s\t%s\0" % (b"0" if removed else mode, to, path)
