"""Makes a backup of a state directory, whether or not the suite runs on it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Final

from cove_server.admin.archive import Archive, created
from cove_server.admin.database import Registry, remove_database
from cove_server.admin.errors import Refused
from cove_server.admin.parts import Parts
from services.registry import copying

VERSION: Final = 1
"""Of the manifest, and of what is in a backup."""
_TOLD: Final = 20
"""Paths that were left out which are told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to back up, and where to."""

    state: Path
    registry: Registry
    target: Path
    registry_only: bool = False


@dataclass(slots=True)
class _LeftOut:
    """What could not be read, so that the rest could."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, path: str, why: str) -> None:
        self.count += 1
        if len(self.first) < _TOLD:
            self.first.append(f"{path}: {why}")


def backup(asked: Asked) -> dict[str, Any]:
    """Make it, whole or not at all. Returns its manifest. Raises `Refused`, OSError."""
    if not asked.registry.exists():
        raise Refused(f"{asked.state} has no registry", "Name the state directory with --state.")
    target = _named(asked.target)
    if os.path.lexists(target):
        raise Refused(f"{target} is there already", "Name another file.")
    with _whole(target) as file:
        manifest = _write(asked, file)
    return {"file": os.fspath(target), **manifest}


def _write(asked: Asked, file: BinaryIO) -> dict[str, Any]:
    spool = Path(f"{file.name}.registry")
    left_out, gone = _LeftOut(), list[str]()
    try:
        asked.registry.copy(spool)
        with Archive(file) as archive:
            parts = Parts(asked.state, archive, left_out.add)
            parts.folder("registry")
            if not asked.registry_only:
                parts.shared()
                for mark in copying.marks(spool).values():
                    parts.environment(mark.uid)
                parts.repositories()
                parts.users()
                gone = asked.registry.settle(spool)
            token = asked.registry.token
            for path, name in ((spool, "registry/registry.db"), (token, "registry/token")):
                _add(archive, path, name)
            copied = copying.describe(spool)
            manifest = {
                "version": VERSION,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "cove": version("cove-server"),
                "scope": "registry" if asked.registry_only else "state",
                "owner": "root" if os.geteuid() == 0 else "user",
                "schema": copied.schema,
                "revision": copied.revision,
                "environments": copied.environments,
                "gone": gone,
                "left_out": left_out.count,
                "left_out_first": left_out.first,
            }
            archive.finish(manifest)
    except sqlite3.Error as error:
        raise Refused(f"the registry cannot be copied: {error}", "Run cove admin check.") from error
    finally:
        remove_database(spool)
    return manifest


def _add(archive: Archive, path: Path, name: str) -> None:
    with suppress(FileNotFoundError), path.open("rb") as file:
        archive.add(name, file.fileno())


def _named(target: Path) -> Path:
    """In a directory it has the time as its name."""
    if target.is_dir():
        return target / f"cove-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar"
    return target


@contextmanager
def _whole(target: Path) -> Iterator[BinaryIO]:
    """A new file that has the name `target` when the block has ended well, and is on disk then."""
    making = target.with_name(f".{target.name}.{os.getpid()}.part")
    with closing(created(making)) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(making, target)  # Where a rename would replace what is there.
            except FileExistsError:
                raise Refused(f"{target} is there already", "Name another file.") from None
        finally:
            making.unlink()
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
