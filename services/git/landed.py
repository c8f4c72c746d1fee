"""Remembers the last merge of each worktree, written before the target moves.

A service that dies between the two, or before it has answered, finds out by it whether
a request that comes again is done.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from services.git import files

_FILE = "merge.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """What a request is about to move where."""

    request: str
    target: str
    previous: str
    commit: str


def note(directory: Path, landing: Landing) -> None:
    """Keep it in the directory of the worktree, in place of the one before."""
    files.write(directory / _FILE, json.dumps(asdict(landing)).encode(), mode=0o600)


def recall(directory: Path, request: str) -> Landing | None:
    """What a request, if it was the last one, was about to do."""
    if not request:
        return None
    try:
        landing = Landing(**json.loads((directory / _FILE).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return landing if landing.request == request else None
