"""Takes refs out of a restored state: of a repository all are in a backup, also those of worktrees
that came, or went, while it was made."""

import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from services.git.record import RECORD

_OURS: Final = (b"refs/cove/", b"refs/notes/cove/")


def drop_unknown(state: Path) -> None:
    """Remove refs of worktrees, and of their snapshots, that are not there. Raises OSError."""
    known = {path.parent.name for path in (state / "git" / "worktrees").glob(f"*/{RECORD}")}
    for repository in (state / "git" / "repositories").glob("*/*.git"):
        for prefix in _OURS:
            for path in _entries(repository / prefix.decode()):
                if path.name not in known:
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
        with suppress(FileNotFoundError):
            _rewrite(repository / "packed-refs", known)


def _rewrite(path: Path, known: Collection[str]) -> None:
    """In its place, as it is another user's."""
    lines = path.read_bytes().splitlines(keepends=True)
    kept = list(_kept(lines, known))
    if kept != lines:
        with path.open("r+b") as file:
            file.writelines(kept)
            file.truncate()


def _kept(lines: list[bytes], known: Collection[str]) -> Iterator[bytes]:
    keep = True
    for line in lines:
        if not line.startswith(b"^"):  # Else it belongs to the one before.
            name = line.rstrip(b"\n").partition(b" ")[2]
            prefix = next((each for each in _OURS if name.startswith(each)), b"")
            uid = name.removeprefix(prefix).partition(b"/")[0].decode("ascii", "replace")
            keep = not prefix or uid in known
        if keep:
            yield line


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
