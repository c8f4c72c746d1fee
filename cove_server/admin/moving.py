"""Puts a restored state in place of what is there, so that a kill leaves the one or the other.

    <state>/restore.new/    what comes, whole and on disk
    <state>/restore.json    written then: from now on it is going to be there
    <state>/replaced-…/     what was there

Whoever takes the lock of the state directory next goes on with it: `cove up` as well.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

MAKING: Final = "restore.new"
_JOURNAL: Final = "restore.json"
_VERSION: Final = 1


def move(state: Path, names: Sequence[str], aside: str) -> None:
    """Put what is in `restore.new` in place of these names, which go to `aside`."""
    _note(state, {"version": _VERSION, "names": list(names), "aside": aside, "moved": False})
    go_on(state)


def go_on(state: Path) -> bool:
    """Finish what `move` began; whether there was something. Raises ValueError, OSError."""
    try:
        journal = json.loads((state / _JOURNAL).read_bytes())
    except FileNotFoundError:
        return False
    if journal["version"] != _VERSION:
        raise ValueError("a restore was begun by another version of Cove: let that one end it")
    making, aside = state / MAKING, state / journal["aside"]
    if not journal["moved"]:
        aside.mkdir(mode=0o700, exist_ok=True)
        for name in journal["names"]:
            with suppress(FileNotFoundError):
                (state / name).rename(aside / name)
        _sync(aside)
        _note(state, {**journal, "moved": True})
    for name in journal["names"]:
        with suppress(FileNotFoundError):
            (making / name).rename(state / name)
    _sync(state)
    (state / _JOURNAL).unlink()
    shutil.rmtree(making, ignore_errors=True)
    with suppress(OSError):  # Nothing was there before.
        aside.rmdir()
    _sync(state)
    return True


def _note(state: Path, journal: Mapping[str, Any]) -> None:
    fresh = state / f".{_JOURNAL}.new"
    with fresh.open("w") as file:
        json.dump(journal, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(state / _JOURNAL)
    _sync(state)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
