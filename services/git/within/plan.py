"""A commit to be: the tree it would have, and the objects that are new in it."""

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path
from typing import Final

from services.git.within.changes import ADDED, RETYPED, Change
from services.git.within.files import Blob, Files, UnreadableError
from services.git.within.layers import Leaf
from services.git.within.objects import (
    EMPTY_TREE,
    LINK,
    TREE,
    Entry,
    Objects,
    format_tree,
    object_id,
)
from services.git.within.pack import HEAD, LEVEL, header

NOT_READ: Final = "the file cannot be read, or is larger than 2 GiB"
REFUSED: Final = "git does not allow this path"
REPOSITORY: Final = "a repository of its own"
SPECIAL: Final = "neither a file nor a symlink"
UNSTABLE: Final = "the file changes while it is read"

_MAX_PATH: Final = 4095
# HFS+ ignores these, so that a name with them in it is .git there.
_IGNORED: Final = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")

_Edits = dict[bytes, "_Edits | Entry | None"]


@dataclass(slots=True)
class Plan:
    """What is to be written."""

    tree: str = EMPTY_TREE
    paths: list[bytes] = field(default_factory=list)
    """In which it differs from the head."""
    skipped: list[tuple[bytes, str]] = field(default_factory=list)
    blobs: dict[str, tuple[Leaf, Blob, bytes]] = field(default_factory=dict)
    """New contents by id, with a path each is at."""
    trees: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of new contents."""
        return sum(blob.size for _, blob, _ in self.blobs.values())


def make(
    objects: Objects,
    files: Files,
    head: str | None,
    changes: Iterable[Change],
    unwanted: Mapping[bytes, str],
) -> Plan:
    """The plan of the tree `head` with `changes`, without those that are `unwanted`, and why."""
    plan, edits = Plan(), _Edits()
    for change in changes:
        reason = unwanted.get(change.path) or refusal(change)
        if not reason and change.leaf is not None:
            reason = _add_file(plan, files, edits, change)
        elif not reason:
            _put(edits, change.path, change.new)
        if reason:
            plan.skipped.append((change.path, reason))
        else:
            plan.paths.append(change.path)
    plan.tree = _build(plan, objects, head, edits) or EMPTY_TREE
    if plan.tree == EMPTY_TREE:
        plan.trees[EMPTY_TREE] = b""
    return plan


def _add_file(plan: Plan, files: Files, edits: _Edits, change: Change) -> str:
    assert change.leaf
    try:
        blob = files.blob(change.leaf, keep=True)
    except UnreadableError:
        return NOT_READ
    _put(edits, change.path, Entry(files.mode(change.leaf), blob.id))
    plan.blobs.setdefault(blob.id, (change.leaf, blob, change.path))
    return ""


def refusal(change: Change) -> str:
    """Why no commit can hold this, by its name or kind; empty if it can."""
    if change.submodule and change.state == ADDED:
        return REPOSITORY
    if change.leaf is not None and change.leaf.kind == "s":
        return SPECIAL if change.state == RETYPED else REFUSED
    if change.leaf is None and change.new is None:
        return ""  # What is there may go, whatever it is called.
    names = change.path.split(b"/")
    if len(change.path) > _MAX_PATH or any(map(_is_git, names)):
        return REFUSED
    link = change.leaf is not None and change.leaf.kind == "l"
    if (link or (change.new is not None and change.new.mode == LINK)) and _is(
        names[-1], b".gitmodules"
    ):
        return REFUSED
    return ""


def _is_git(name: bytes) -> bool:
    return _is(name, b".git") or name.lower().split(b":")[0].rstrip(b" .") == b"git~1"


def _is(name: bytes, wanted: bytes) -> bool:
    """Whether some file system takes `name` for `wanted`: by case, streams, or ignored letters."""
    if b"g" not in name and b"G" not in name:
        return False
    plain = _IGNORED.sub("", name.decode("utf-8", "surrogateescape")).casefold()
    return plain.split(":")[0].rstrip(" .") == wanted.decode()


def _put(edits: _Edits, path: bytes, entry: Entry | None) -> None:
    *parents, name = path.split(b"/")
    for parent in parents:
        below = edits.get(parent)
        if not isinstance(below, dict):
            if below is not None and entry is None:
                return  # What was below is gone with it: a file is there now.
            below = edits[parent] = {}
        edits = below
    if entry is not None or not isinstance(edits.get(name), dict):
        edits[name] = entry


def _build(plan: Plan, objects: Objects, base: str | None, edits: _Edits) -> str | None:
    """The tree `base` with `edits`; None when nothing is left in it."""
    entries = dict(objects.tree(base)) if base else {}
    for name, edit in edits.items():
        if isinstance(edit, dict):
            old = entries.get(name)
            below = old.id if old is not None and old.mode == TREE else None
            made = _build(plan, objects, below, edit)
            edit = Entry(TREE, made) if made else None
            if made is None and old is not None and old.mode != TREE:
                continue
        if edit is None:
            entries.pop(name, None)
        else:
            entries[name] = edit
    if not entries:
        return None
    data = format_tree(entries)
    identifier = object_id(b"tree", data)
    if identifier != base:
        plan.trees[identifier] = data
        objects.know(identifier, entries)
    return identifier


def send(plan: Plan, files: Files, commit: bytes, write: Callable[[bytes], object]) -> list[bytes]:
    """Write a pack of all that is new, with a commit at its end unless that is empty.

    Returns paths whose files changed meanwhile: then the pack is of no use.
    """
    digest = sha1(usedforsecurity=False)

    def put(data: bytes) -> None:
        digest.update(data)
        write(data)

    count = len(plan.blobs) + len(plan.trees) + bool(commit)
    put(HEAD + count.to_bytes(4, "big"))
    changed = []
    for identifier, (leaf, blob, path) in plan.blobs.items():
        put(header(b"blob", blob.size))
        if not _send_file(files, leaf, blob, put, identifier):
            files.doubt(leaf)
            changed.append(path)
            return changed
    for data in plan.trees.values():
        put(header(b"tree", len(data)) + zlib.compress(data, LEVEL))
    if commit:
        put(header(b"commit", len(commit)) + zlib.compress(commit, LEVEL))
    write(digest.digest())
    return changed


def contents(plan: Plan, files: Files) -> list[bytes]:
    """Of all new files, which are few and small; none if one has changed meanwhile."""
    found = []
    for identifier, (leaf, blob, _) in plan.blobs.items():
        try:
            data = b"".join(files.chunks(leaf, blob))
        except UnreadableError:
            return []
        if object_id(b"blob", data) != identifier:
            return []
        found.append(data)
    return found


def _send_file(
    files: Files, leaf: Leaf, blob: Blob, put: Callable[[bytes], object], identifier: str
) -> bool:
    check = sha1(b"blob %d\0" % blob.size, usedforsecurity=False)
    packer = zlib.compressobj(LEVEL)
    try:
        for data in files.chunks(leaf, blob):
            check.update(data)
            put(packer.compress(data))
    except UnreadableError:
        return False
    put(packer.flush())
    return check.hexdigest() == identifier


def write_loose(plan: Plan, files: Files, folder: Path) -> list[bytes]:
    """Write all that is new as loose objects; returns paths whose files changed meanwhile."""
    for identifier, (leaf, blob, path) in plan.blobs.items():
        packer = zlib.compressobj(LEVEL)
        check = sha1(b"blob %d\0" % blob.size, usedforsecurity=False)
        try:
            with _target(folder, identifier).open("wb") as file:
                file.write(packer.compress(b"blob %d\0" % blob.size))
                for data in files.chunks(leaf, blob):
                    check.update(data)
                    file.write(packer.compress(data))
                file.write(packer.flush())
        except UnreadableError:
            return [path]
        if check.hexdigest() != identifier:
            files.doubt(leaf)
            return [path]
    for identifier, data in plan.trees.items():
        packed = zlib.compress(b"tree %d\0" % len(data) + data, LEVEL)
        _target(folder, identifier).write_bytes(packed)
    return []


def _target(folder: Path, identifier: str) -> Path:
    target = folder / identifier[:2] / identifier[2:]
    target.parent.mkdir(exist_ok=True)
    return target


def selected(changes: Sequence[Change], roots: Sequence[bytes]) -> list[Change]:
    """Those at or below one of `roots`; all without roots."""
    cleaned = [root.strip(b"/").removeprefix(b"./") for root in roots]
    if not cleaned or b"" in cleaned or b"." in cleaned:
        return list(changes)
    return [
        change
        for change in changes
        if any(change.path == root or change.path.startswith(root + b"/") for root in cleaned)
    ]
