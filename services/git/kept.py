"""What is remembered of commits that are kept for worktrees of other nodes: a small file each.

The commit itself is a ref in the repository, and only that. The file is there before anything
else is, and goes last: so nothing is kept that is not listed.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from servicekit.aside import aside
from servicekit.config import StartError
from services.git import files

VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Of whom commits are kept. `key` names the repository among those of its tenant."""

    uid: str
    tenant: str
    asked: str
    """URL of the origin as the caller wrote it; empty: none."""
    repository: str
    """The same as everyone writes it."""
    key: str
    create_time: float
    version: int = VERSION


class KeptCommits:
    """All of this node, in memory and on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._kept: dict[str, Kept] = {}

    def load(self) -> None:
        """Read what is on disk, without what was not written to its end."""
        self.root.mkdir(exist_ok=True, mode=0o700)
        files.sweep(self.root)
        for path in self.root.glob("*.json"):
            try:
                kept = decoded(path.read_bytes())
            except (ValueError, KeyError, TypeError) as error:  # Not to be guessed at.
                raise StartError(f"{path}: {error}") from None
            self._kept[kept.uid] = kept

    def find(self, uid: str) -> Kept | None:
        return self._kept.get(uid)

    def after(self, uid: str, tenant: str = "") -> Iterator[Kept]:
        """Those whose uid comes after `uid`, in order; of `tenant`, or of all."""
        order = sorted(self._kept)
        for other in order[bisect_right(order, uid) :]:
            if tenant in ("", self._kept[other].tenant):
                yield self._kept[other]

    async def keep(self, kept: Kept) -> None:
        """Write it; it survives a power loss from now on. Call it with the uid locked."""
        data = json.dumps(asdict(kept)).encode()
        await aside(files.write, self._path(kept.uid), data, mode=0o600)
        self._kept[kept.uid] = kept

    def drop(self, uid: str) -> None:
        """Forget it, if it is there; the caller has removed its ref."""
        self._path(uid).unlink(missing_ok=True)
        self._kept.pop(uid, None)

    def users_of(self, tenant: str, key: str) -> int:
        """For how many worktrees of other nodes a repository keeps commits."""
        return sum((each.tenant, each.key) == (tenant, key) for each in self._kept.values())

    def _path(self, uid: str) -> Path:
        return self.root / f"{uid}.json"


def decoded(data: bytes) -> Kept:
    """As it was written. Raises ValueError, TypeError and KeyError for what is none, or of a
    later version."""
    values = json.loads(data)
    if values["version"] > VERSION:
        raise ValueError(f"kept commits of version {values['version']}; {VERSION} is known here")
    return Kept(**values)
