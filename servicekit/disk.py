"""Refuses new work on a disk that is nearly full, so that what runs can go on."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.errors import Quota, ResourceExhausted

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(ResourceExhausted):
    reason = ErrorReason.ERROR_REASON_DISK_FULL


def used(path: Path) -> float:
    """Which share of the disk below `path` is used, from 0 to 1, as `df` counts it."""
    found = os.statvfs(path)
    taken = found.f_blocks - found.f_bfree
    usable = taken + found.f_bavail
    return taken / usable if usable else 1.0


def full(number: int | None) -> DiskFull | None:
    """What to tell of a write that failed with this errno; None when space was not lacking."""
    if number not in NO_ROOM:
        return None
    return DiskFull("no space is left in the state directory")


class DiskGuard:
    """Watches the disk of one directory, which must exist."""

    def __init__(self, path: Path, limit: float, measure: Callable[[Path], float] = used) -> None:
        self._path = path
        self._limit = limit
        self._measure = measure

    def check(self) -> None:
        """Call before new work. Raises `DiskFull`; the share is told in percent."""
        share = self._measure(self._path)
        if share >= self._limit:
            raise DiskFull(
                "the disk of the state directory is nearly full",
                quotas=[Quota("disk", f"{share:.0%} used, {self._limit:.0%} allowed")],
                used=f"{share:.0%}",
                limit=f"{self._limit:.0%}",
            )
