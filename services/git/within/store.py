"""The operations on a repository that a cell offers: refs are moved and packs taken in.

Refs are locked, written and renamed as git does it, so that both may go on at once.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from services.git.within import pack, sound
from services.git.within.loose import Quarantine
from services.git.within.objects import Objects
from services.git.within.operations import Answer, Context, Operation
from services.git.within.pack import Item
from services.git.within.wire import Payload

LOCKED: Final = "locked"
_ERRORS: Final = 16 * 1024
_ATTEMPTS: Final = 3


def move(payload: Payload, _: list[int], __: Context) -> Answer:
    """Move `ref` of the `store` from `old` to `new`, each empty where there is none.

    `moved`: whether it was at `old`, or that it is `LOCKED`. None: it is to go and is packed, also
    if only as it was once, and left to git. What has moved survives a power loss.
    """
    return {"moved": _move(Path(payload["store"]), payload)}, []


def land(payload: Payload, descriptors: list[int], __: Context) -> Answer:
    """Have the command `argv` take in the pack that comes from the descriptor; then `move`.

    `loose`: it makes loose objects, which get their names when all are on the disk.
    """
    store = Path(payload["store"])
    if payload["loose"]:
        with Quarantine(store / "objects") as quarantine:
            environment = {**payload["environment"], **quarantine.environment}
            code, errors = _run(payload["argv"], environment, descriptors[0])
            if code == 0:
                quarantine.settle()
    else:
        code, errors = _run(payload["argv"], payload["environment"], descriptors[0])
    moved = _move(store, payload) if code == 0 else False
    return {"code": code, "errors": errors, "moved": moved}, []


def keep(payload: Payload, _: list[int], context: Context) -> Answer:
    """Take in `items`, as `look.make` tells them, and their `commit`, if sound; then `move`.

    `doubt`: why git has to judge; then nothing has happened.
    """
    store, commit = Path(payload["store"]), payload["commit"].encode("latin-1")
    objects = _objects(payload["environment"], context)
    try:
        items = sound.read(payload["items"])
        sound.check(items, commit, objects, payload["old"])
    except sound.DoubtfulError as error:
        return {"doubt": str(error)}, []
    items[payload["new"]] = Item(b"commit", commit)
    pack.write(str(store / "objects"), items)
    return {"moved": _move(store, payload)}, []


def _objects(environment: Mapping[str, str], context: Context) -> Objects:
    found = context.cache.get("store")
    if not isinstance(found, Objects):
        context.cache["store"] = found = Objects(environment)
    return found


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


def _move(store: Path, payload: Mapping[str, Any]) -> bool | str | None:
    name, old, new = payload["ref"], payload["old"], payload["new"]
    path = store / name
    with _locked(path) as lock:
        if lock is None:
            return LOCKED
        loose = _read(path)
        packed = "" if loose and new else _packed(store, name)
        if packed and not new:
            return None
        if (loose or packed) != old:
            return False
        if new:
            os.write(lock, new.encode() + b"\n")
            os.fsync(lock)
            path.with_name(f"{path.name}.lock").rename(path)
            _sync_directory(path.parent)
        elif loose:
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


def _packed(store: Path, name: str) -> str:
    try:
        data = b"\n" + (store / "packed-refs").read_bytes()
    except FileNotFoundError:
        return ""
    before, found, _ = data.partition(f" {name}\n".encode())
    return before[before.rfind(b"\n") + 1 :].decode("ascii") if found else ""


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


OPERATIONS: Final[Mapping[str, Operation]] = {"move": move, "land": land, "keep": keep}
