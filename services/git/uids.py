"""Which user the sandboxes of a tenant are, outside: one of its own for each.

    uids.json    {"tenants": {"<folder>": uid}}

A uid is given out once and never again, also when nothing is left of its tenant: files of it may
be in a backup. What is on disk says which one is meant: whoever starts a sandbox, or connects to
one, goes by the owner of its worktree, which nobody inside can change.
"""

import json
import os
from pathlib import Path
from typing import Final

from agent import KEEPER_UID, SANDBOX_UID
from servicekit.config import StartError
from services.git import files
from services.git.errors import NoUid

_LEAST: Final = 1000
_VARIABLE: Final = "COVE_PROVIDER__SANDBOX_UIDS"


class Uids:
    def __init__(self, path: Path, uids: range) -> None:
        self._path = path
        self._uids = uids
        self._known = _read(path)
        self._next = max(self._known.values(), default=uids.start - 1) + 1

    @classmethod
    def open(cls, directory: Path, text: str) -> "Uids | None":
        """None where `text` is empty: all sandboxes are of the one user. Raises `StartError`."""
        path = directory / "uids.json"
        known = _read(path)
        if not text:
            if known:
                raise StartError(f"{path}: tenants have uids of their own: set {_VARIABLE}")
            return None
        uids = parse(text)
        if os.geteuid() != 0:
            raise StartError(f"{_VARIABLE}: only root can give other uids")
        strange = [uid for uid in known.values() if uid not in uids]
        if strange:
            raise StartError(f"{_VARIABLE}: {strange[0]} was given out, and is not in it")
        if not known and _is_used(directory):
            raise StartError(
                f"{_VARIABLE}: there are worktrees or checkouts of the one user of before: "
                "delete the workspaces of this node, end git, and remove git/checkouts"
            )
        return cls(path, uids)

    def of(self, tenant: str) -> int:
        """Its own; a new one is on disk before it is used. Raises `NoUid`."""
        if found := self._known.get(tenant):
            return found
        if self._next not in self._uids:
            raise NoUid(
                "no uid is left for another tenant",
                cause=f"every uid of {_VARIABLE} is given out",
                remedy=f"Have the operator add uids to {_VARIABLE}.",
            )
        known = self._known | {tenant: self._next}
        files.write(self._path, json.dumps({"tenants": known}).encode())
        self._known, self._next = known, self._next + 1
        return known[tenant]


def parse(text: str) -> range:
    """`first-last`. Raises `StartError`."""
    first, dash, last = text.partition("-")
    if not dash or not first.isdecimal() or not last.isdecimal():
        raise StartError(f"{_VARIABLE}: not first-last: {text}")
    uids = range(int(first), int(last) + 1)
    if not uids or uids.start < _LEAST or uids[-1] >= 1 << 31:
        raise StartError(f"{_VARIABLE}: not a range of uids from {_LEAST} on: {text}")
    for uid in (SANDBOX_UID, KEEPER_UID):
        if uid in uids:
            raise StartError(f"{_VARIABLE}: {uid} is another user's: {text}")
    return uids


def _read(path: Path) -> dict[str, int]:
    try:
        return dict(json.loads(path.read_bytes())["tenants"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartError(f"{path}: cannot be read: {error}") from None


def _is_used(directory: Path) -> bool:
    return any(
        next((directory / name).glob("*"), None) is not None for name in ("worktrees", "checkouts")
    )
