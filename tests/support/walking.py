"""Looks through folders in which others are at work."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def all_in(folder: Path) -> Iterator[Path]:
    """As `folder.rglob("*")`, which fails when a folder goes just then."""
    for there, folders, files in os.walk(folder):
        yield from (Path(there, name) for name in (*folders, *files))


def contents(folder: Path, most: int = 1 << 30) -> Iterator[tuple[Path, bytes]]:
    """What is in each file, but in those that go just then, or are of `most` bytes or more."""
    for each in all_in(folder):
        with suppress(FileNotFoundError):
            if each.is_file() and each.stat().st_size < most:
                yield each, each.read_bytes()
