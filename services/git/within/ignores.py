"""What .gitignore excludes: asked of git itself, which sees nothing but files of this name.

`git check-ignore` is kept running on a scratch directory that holds the worktree's .gitignore
files. It reads one when it comes to its directory, so new ones need no new process; a changed
one does.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

NAME: Final = b".gitignore"
MAX_BYTES: Final = 1 << 20
"""Of a .gitignore; a larger one is not read."""
_MAX_PATH: Final = 3900
"""Bytes; in the scratch directory it is still short enough for the kernel. Longer ones are not
excluded."""
_BATCH: Final = 4096
"""Bytes that are asked at once: any pipe holds as many, so that git, which answers meanwhile, and
who asks never wait for each other."""
_MORE: Final = len(b"./\0")
_FIELDS: Final = 4


class Ignores:
    """Answers for one state of all .gitignore files at a time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._folder = b""
        self._written: dict[bytes, bytes] = {}
        self._made: set[bytes] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """End the process and forget everything."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = b""
        self._written = {}
        self._made = set()

    def have(self, directory: bytes, content: bytes) -> None:
        """The .gitignore of a directory (`` is the root, others end with a slash); empty: none."""
        if len(directory) > _MAX_PATH:
            return
        known = self._written.get(directory)
        if known == content:
            return
        if known is not None and self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._written[directory] = content
        target = os.path.join(self._make(directory), NAME)
        if content:
            with open(target, "wb") as file:
                file.write(content)
        elif known:
            os.unlink(target)

    def excluded_directory(self, directory: bytes) -> bool:
        """Whether all below `directory` (with a slash at its end) is excluded, if not tracked."""
        if len(directory) > _MAX_PATH:
            return False
        self._make(directory)
        return directory.rstrip(b"/") in self.excluded([directory.rstrip(b"/")])

    def excluded(self, paths: Sequence[bytes]) -> set[bytes]:
        """Those of `paths` that are excluded."""
        if not any(self._written.values()):
            return set()
        paths = [path for path in paths if len(path) <= _MAX_PATH]
        found: set[bytes] = set()
        batch, size = list[bytes](), 0
        for path in paths:
            size += len(path) + _MORE
            if size > _BATCH:
                found |= self._ask(batch)
                batch, size = [], len(path) + _MORE
            batch.append(path)
        return found | self._ask(batch) if batch else found

    def _ask(self, paths: Sequence[bytes]) -> set[bytes]:
        process = self._running()
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"".join(b"./" + path + b"\0" for path in paths))
        process.stdin.flush()
        fields, rest = list[bytes](), b""
        while len(fields) < _FIELDS * len(paths):
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                raise ValueError("git ended before it answered")
            *whole, rest = (rest + data).split(b"\0")
            fields += whole
        found = set()
        for number, path in enumerate(paths):
            source, _, pattern, name = fields[_FIELDS * number : _FIELDS * (number + 1)]
            if name != b"./" + path:  # Without that it could be magic.
                raise ValueError("git answered another question")
            if source and not pattern.startswith(b"!"):
                found.add(path)
        return found

    def _make(self, directory: bytes) -> bytes:
        if not self._folder:
            self._folder = os.fsencode(tempfile.mkdtemp(prefix="ignores-"))
        path = os.path.join(self._folder, directory)
        if directory not in self._made and len(directory) <= _MAX_PATH:
            os.makedirs(path, exist_ok=True)
            self._made.add(directory)
        return path

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            environment = {
                **self._environment,
                "GIT_WORK_TREE": os.fsdecode(self._folder),
            }
            self._process = subprocess.Popen(
                ["git", "check-ignore", "--no-index", "--stdin", "-z", "-v", "-n"],
                cwd=Path(os.fsdecode(self._folder)),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                stderr=None,
            )
        return self._process
