"""Repositories to measure with, the same in every run."""

import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GIT: Final = ("git", "-c", "user.name=bench", "-c", "user.email=bench@example.org")
_WORDS: Final = ("api", "core", "data", "lib", "net", "parse", "store", "tests", "tools", "web")
_PER_FOLDER: Final = 12
_LINE: Final = "    value = compute(value, step)  # line of a file\n"
_MAX_LINES: Final = 60


@dataclass(frozen=True, slots=True)
class Source:
    """A bare repository with one commit on `main`."""

    path: Path
    commit: str
    files: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"file://{self.path}"


def make(folder: Path, files: int) -> Source:
    """A repository of so many files in a tree of directories, some 12 in each."""
    folder.mkdir(parents=True)
    subprocess.run([*GIT, "init", "-q", "--bare", "-b", "main", str(folder)], check=True)
    paths = tuple(_paths(files))
    command = [*GIT, "-C", str(folder), "fast-import", "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        importing.stdin.writelines(_stream(paths))
        importing.stdin.close()
    assert importing.returncode == 0
    commit = subprocess.run(
        [*GIT, "-C", str(folder), "rev-parse", "main"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return Source(folder, commit, paths)


def _paths(files: int) -> Iterator[str]:
    """Names in folders one to five deep."""
    for number in range(files):
        folder, place = divmod(number, _PER_FOLDER)
        parts = [f"{_WORDS[place % len(_WORDS)]}{place}.py"]
        while folder:
            folder, place = divmod(folder, len(_WORDS))
            parts.insert(0, _WORDS[place])
        yield "/".join(parts)


def _stream(paths: tuple[str, ...]) -> Iterator[bytes]:
    """What `git fast-import` reads."""
    chance = random.Random(0)
    yield b"commit refs/heads/main\ncommitter bench <bench@example.org> 1700000000 +0000\n"
    yield b"data 4\nbase\n"
    for path in paths:
        data = f"# {path}\n{_LINE * chance.randrange(1, _MAX_LINES)}".encode()
        yield b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data)
