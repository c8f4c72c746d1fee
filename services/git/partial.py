"""Repositories that hold a part only: history up to a depth, contents of files up to a size.

What was asked for is kept in the repository, with what the remote would not do. Such a one is
apart from the whole one, and holds what one revision needs: its first fetch is cut, later
ones never are, so that no history that somebody stands on gets shorter.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from services.git import files
from services.git.answers import Listing
from services.git.command import is_commit_id
from services.git.sandbox import Identity

SHALLOW: Final = "info/cove-shallow"
"""Below the objects: where history ends, for those who see no more than these."""
_FILE: Final = "cove-partial.json"
_PROMISOR: Final = (
    b"[core]\n\trepositoryformatversion = 1\n[extensions]\n\tpartialClone = origin\n"
    b'[remote "origin"]\n\tpromisor = true\n'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """What of a repository is wanted."""

    revision: str
    depth: int = 0
    """Commits back from the revision; 0: all."""
    filter: str = ""
    """As `git clone --filter` takes it: `blob:none`, or `blob:limit=N`; empty: all."""
    warnings: tuple[str, ...] = ()
    """What came of it otherwise."""

    def key(self, remote: str) -> str:
        """Names the repository on disk, apart from the whole one of the same remote."""
        parts = (remote, str(self.depth), self.filter, self.revision)
        return sha256("\0".join(parts).encode()).hexdigest()[:32]

    @property
    def config(self) -> bytes:
        """What its configuration has more."""
        return _PROMISOR if self.filter else b""

    def options(self, *, first: bool) -> list[str]:
        """Of a fetch."""
        options = [f"--depth={self.depth}"] if self.depth and first else []
        return [*options, f"--filter={self.filter}"] if self.filter else options

    def refspecs(self, listing: Listing) -> list[str]:
        """What to fetch of what the remote has: the one branch or tag, or the commit of HEAD.

        Nothing for a commit, which is fetched by its id.
        """
        name = self.revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        if name in ("", "HEAD"):
            name = listing.head_branch
            if not name:
                return [listing.head] if listing.head else []
        if f"refs/heads/{name}" in listing.refs and not self.revision.startswith("refs/tags/"):
            return [f"+refs/heads/{name}:refs/remotes/origin/{name}"]
        if f"refs/tags/{name}" in listing.refs:
            return [f"+refs/tags/{name}:refs/tags/{name}"]
        return []


def wanted(depth: int, kinds: str, revision: str) -> Partial | None:
    """None where all is wanted."""
    if not depth and not kinds:
        return None
    return Partial(revision=revision, depth=depth, filter=kinds)


def read(path: Path) -> Partial | None:
    """What the repository at `path` holds; None: all."""
    try:
        values = json.loads((path / _FILE).read_bytes())
    except FileNotFoundError:
        return None
    return Partial(**{**values, "warnings": tuple(values["warnings"])})


def keep(path: Path, partial: Partial) -> None:
    """Write it into the repository at `path`."""
    files.write(path / _FILE, json.dumps(asdict(partial)).encode())


def expose(path: Path, owner: Identity) -> None:
    """Have those who see the objects only know where history ends."""
    if text := shallow(path):
        files.write(path / "objects" / SHALLOW, text, owner=owner)


def shallow(path: Path) -> bytes:
    """The commits at which the history of the repository at `path` ends, as git writes them."""
    with suppress(FileNotFoundError):
        return (path / "shallow").read_bytes()
    return b""


def missing(output: bytes) -> Sequence[str]:
    """The objects that `rev-list --missing=print` says are not here."""
    lines = output.decode("ascii", "replace").split("\n")
    return [line[1:] for line in lines if line.startswith("?") and is_commit_id(line[1:])]
