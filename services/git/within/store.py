"""The operations on a repository that a cell offers: refs are moved and packs taken in.

Refs are locked, written and renamed as git does it, so that both may go on at once.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from services.git.within.operations import Answer, Context, Operation
from services.git.within.system import is_ordered, write_out
from services.git.within.wire import Payload

LOCKED: Final = "locked"
_ERRORS: Final = 16 * 1024
_ATTEMPTS: Final = 3
_FAN: Final = 2
"""Letters of an id that name the folder of a loose object."""


def move(payload: Payload, _: list[int], __: Context) -> Answer:
    """Move `ref` of the `store` from `old` to `new`, each empty where there is none.

    `moved`: whether it was at `old`, or that it is `LOCKED`. None: it is packed, and left to git.
    """
    return {"moved": _move(Path(payload["store"]), payload)}, []


def land(payload: Payload, descriptors: list[int], __: Context) -> Answer:
    """Have the command `argv` take in the pack that comes from the descriptor; then `move`.

    `loose`: it makes loose objects, which get their names when all are on the disk.
    """
    store = Path(payload["store"])
    if payload["loose"]:
        with _quarantine(store, payload["environment"]) as (folder, environment):
            code, errors = _run(payload["argv"], environment, descriptors[0])
            if code == 0:
                _settle(folder, str(store / "objects"))
    else:
        code, errors = _run(payload["argv"], payload["environment"], descriptors[0])
    moved = _move(store, payload) if code == 0 else False
    return {"code": code, "errors": errors, "moved": moved}, []


def _run(argv: list[str], environment: Mapping[str, str], stdin: int) -> tuple[int, str]:
    done = subprocess.run(
        argv,
        env=environment,
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    return done.returncode, done.stderr[-_ERRORS:].decode("utf-8", "replace")


@contextmanager
def _quarantine(
    store: Path, environment: Mapping[str, str]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """A folder for new objects, and what tells git of it. Leftovers are known by its name."""
    objects = str(store / "objects")
    folder = tempfile.mkdtemp(dir=objects, prefix="tmp_objdir-")
    own = {"GIT_OBJECT_DIRECTORY": folder, "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects}
    try:
        yield folder, {**environment, **own}
    finally:
        try:
            os.rmdir(folder)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)


def _settle(folder: str, objects: str) -> None:
    """Move all loose objects to where they belong, once they are on the disk.

    Where a file system keeps the order of its journal, one sync covers what was written out
    before it; elsewhere each file is synced.
    """
    made = [f"{name}/{one}" for name in os.listdir(folder) for one in _names(f"{folder}/{name}")]
    ordered = is_ordered(folder)
    for number, name in enumerate(made, start=1):
        descriptor = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ordered and number < len(made):
                write_out(descriptor)
            else:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    known = set(os.listdir(objects))
    for name in made:
        if name[:2] not in known:
            with suppress(FileExistsError):
                os.mkdir(f"{objects}/{name[:2]}")
            known.add(name[:2])
        os.rename(f"{folder}/{name}", f"{objects}/{name}")
    for name in os.listdir(folder):
        os.rmdir(f"{folder}/{name}")


def _names(folder: str) -> list[str]:
    """Of the objects in a folder of loose ones; there is no other there."""
    return os.listdir(folder) if len(os.path.basename(folder)) == _FAN else []


def _move(store: Path, payload: Mapping[str, Any]) -> bool | str | None:
    name, old, new = payload["ref"], payload["old"], payload["new"]
    path = store / name
    with _locked(path) as lock:
        if lock is None:
            return LOCKED
        here = _read(path)
        if not here and _is_packed(store, name):
            return None
        if here != old:
            return False
        if new:
            os.write(lock, new.encode() + b"\n")
            os.fsync(lock)
            path.with_name(f"{path.name}.lock").rename(path)
        elif here:
            path.unlink()
    if not new:
        with suppress(OSError):
            path.parent.rmdir()
    return True


@contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """The lock of a ref, open for writing; None while another has it."""
    lock = path.with_name(f"{path.name}.lock")
    descriptor = None
    for _ in range(_ATTEMPTS):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Git may remove an empty directory meanwhile.
        with suppress(FileNotFoundError, FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(lock, flags, 0o644)
            break
    if descriptor is None:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        lock.unlink(missing_ok=True)


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        return ""


def _is_packed(store: Path, name: str) -> bool:
    try:
        return f" {name}\n".encode() in (store / "packed-refs").read_bytes()
    except FileNotFoundError:
        return False


OPERATIONS: Final[Mapping[str, Operation]] = {"move": move, "land": land}
