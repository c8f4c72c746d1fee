"""Control groups of launchers that have ended: the next one of the same state removes them.

Each launcher notes where its groups go, in a file of its own, before it makes any. Nobody else can
tell whose a group was, and a launcher of another session would look for it elsewhere.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.launcher.cgroups import group_name, remove_empty


class Earlier:
    """`folder` holds the notes; `runtime` is of the launcher that runs now."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self._folder = folder
        self._runtime = runtime
        self._own = folder / group_name(runtime)
        self._before: tuple[Path, ...] = ()

    def note(self, bases: Sequence[Path]) -> tuple[Path, ...]:
        """Write down where groups go from now on; gives where else those of `runtime` may be.

        Raises OSError.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _, noted = _read(self._own)
        self._before = tuple(each for each in noted if each not in bases and each.is_dir())
        found = {"runtime": str(self._runtime), "bases": [*map(str, (*bases, *self._before))]}
        writing = self._own.with_suffix(".new")
        writing.write_text(json.dumps(found))
        writing.rename(self._own)
        return self._before

    def sweep(self) -> None:
        """Remove the groups without a process of those that have ended."""
        for base in self._before:
            remove_empty(base)
        for note in self._folder.iterdir():
            runtime, bases = _read(note)
            if note != self._own and runtime and not _served(Path(runtime)):
                for base in bases:
                    remove_empty(base)
                if not any(base.exists() for base in bases):
                    note.unlink(missing_ok=True)


def _read(note: Path) -> tuple[str, list[Path]]:
    """The runtime directory and the groups of a launcher; nothing where that is not known."""
    try:
        found = json.loads(note.read_text())
        runtime, bases = str(found["runtime"]), [Path(each) for each in found["bases"]]
    except (OSError, ValueError, KeyError, TypeError):
        return "", []
    name = group_name(Path(runtime))
    return runtime, [each for each in bases if each.name.startswith(name)]


def _served(runtime: Path) -> bool:
    """Whether a launcher has that directory."""
    try:
        lock = os.open(runtime / "launcher.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        with suppress(OSError):
            os.close(lock)
    return False
