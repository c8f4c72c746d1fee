"""Restores a backup into a state directory on which nothing runs."""

import ctypes
import fcntl
import os
import shutil
import socket
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cove_server.admin import backup, moving, reading
from cove_server.admin.database import Registry, remove_database
from cove_server.admin.errors import Refused
from cove_server.admin.laying import lay_out
from cove_server.admin.parts import TOP
from cove_server.admin.refs import drop_unknown
from cove_server.errors import CannotStart
from cove_server.places import Places
from services.registry import copying
from services.registry.errors import StartError

_OF_THE_UID: Final = (
    "git/worktrees/{}",
    "provider/environments/{}",
    "executor/executions/{}",
)
_REGISTRY: Final = "registry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    source: Path
    places: Places
    registry: Registry
    replace: bool = False


def restore(asked: Asked) -> dict[str, Any]:
    """Verify all of it, then put it in place. Raises `Refused`, OSError; nothing has changed then.

    What was there is kept beside it with `replace`, and is what keeps it from happening without.
    """
    manifest = reading.verified(asked.source, backup.VERSION)
    owner = "root" if os.geteuid() == 0 else "user"
    if manifest.owner != owner:
        raise Refused(
            f"the backup is of a suite that ran as {manifest.owner}, this is {owner}",
            "The two lay out files under other owners: restore it as what it was.",
        )
    names = [_REGISTRY] if manifest.scope == _REGISTRY else list(TOP)
    state = asked.places.state
    try:
        with asked.places.held(take_over=1):
            if answers(asked.places.socket("launcher")):
                raise Refused(
                    "a launcher runs, and maybe sandboxes", "cove up, and then end it, ends both."
                )
            if uid := _in_use(state / "git" / "worktrees"):
                raise Refused(
                    f"a sandbox has the worktree {uid}", "cove up, and then end it, ends both."
                )
            there = [name for name in names if _filled(state / name)]
            if there and not asked.replace:
                raise Refused(
                    f"{state} has {', '.join(there)} already",
                    "Name an empty directory, or --replace: what is there is kept beside it.",
                )
            asked.registry.check_fillable(manifest.sha256)
            revision = _lay_out(asked, state / moving.MAKING, manifest)
            aside = f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"
            moving.move(state, names, aside)
            kept = state / aside
            return {
                "state": os.fspath(state),
                "scope": manifest.scope,
                "environments": manifest.environments,
                "revision": revision,
                "replaced": os.fspath(kept) if kept.exists() else None,
            }
    except CannotStart as error:
        raise Refused(str(error), error.remedy) from error


def _lay_out(asked: Asked, making: Path, manifest: reading.Manifest) -> int:
    """Make all that will be there, durably. Returns the revision that it begins with.

    A database elsewhere is filled last. Killed after that, the same restore goes on with it.
    """
    latest = _latest(asked.places.state / "registry" / "registry.db")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o700)
    try:
        lay_out(making, reading.entries(asked.source))
        for uid in manifest.gone:
            for home in _OF_THE_UID:
                shutil.rmtree(making / home.format(uid), ignore_errors=True)
        drop_unknown(making)
        # Above whatever any life of this registry can have given out, and as large as the
        # clock in microseconds: so also above that of a restore of the same backup before.
        later_than = max(latest, time.time_ns() // 1000)
        database = making / "registry" / "registry.db"
        revision = copying.renew(database, later_than)
        _sync_all(making)
        if (filled := asked.registry.fill(database, manifest.sha256)) is not None:
            revision = filled
            remove_database(database)
    except (StartError, sqlite3.Error) as error:
        raise Refused(f"the registry of the backup: {error}", "Use another backup.") from error
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return revision


def _latest(database: Path) -> int:
    """The last revision of the registry that is replaced, where there is one to be read."""
    with suppress(sqlite3.Error, OSError, TypeError):
        return copying.describe(database).revision
    return 0


def _filled(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _in_use(worktrees: Path) -> str:
    """The uid of a worktree that a sandbox has, which outlived `cove up`; empty: none."""
    for lock in sorted(worktrees.glob("*/lock")):
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.parent.name
    return ""


def answers(path: Path) -> bool:
    """Whether somebody serves on a unix socket."""
    with socket.socket(socket.AF_UNIX) as peer:
        try:
            peer.connect(os.fspath(path))
        except OSError:
            return False
        return True


def _sync_all(folder: Path) -> None:
    """Have the whole file system on disk: of many files that is less than one after the other."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(folder))
    finally:
        os.close(descriptor)
