"""The operations on a worktree that a cell offers."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from services.git.within import plan, sound
from services.git.within.changes import ADDED, DELETED, RENAMED, Change, Comparison
from services.git.within.files import Files
from services.git.within.ignores import Ignores
from services.git.within.layers import spooled, world
from services.git.within.objects import EMPTY_TREE, Objects
from services.git.within.operations import Answer, Context, Operation
from services.git.within.wire import Payload

_RENAMES: Final = 1000
"""Files that vanished, or appeared: with more of them no renames are looked for."""
_RENAMED_FILE: Final = 8 << 20
"""Bytes of a file that is looked for under another name."""
_RENAMED_TOTAL: Final = 128 << 20
_DEPTH: Final = 20_000
_PATH_BYTES: Final = 32 << 20
"""Of all paths in an answer."""


class Look:
    """One worktree, as this cell sees it. Kept between operations, for what it has read."""

    def __init__(self, environment: Mapping[str, str], roots: Sequence[str]) -> None:
        sys.setrecursionlimit(_DEPTH)
        self.environment = dict(environment)
        self.roots = tuple(roots)
        self.objects = Objects(environment)
        self.files = Files(roots)
        self.ignores = Ignores(environment)
        self.plan: plan.Plan | None = None

    def close(self) -> None:
        self.objects.close()
        self.files.close()
        self.ignores.close()

    def compare(
        self, payload: Mapping[str, Any], descriptors: Sequence[int]
    ) -> tuple[str | None, list[Change]]:
        """The tree of the head, and what differs from it."""
        scans = payload["scans"]
        if scans is None:
            scans = spooled(descriptors[0])
        base, head = self._tree(payload["base"]), self._tree(payload["head"])
        found = Comparison(self.objects, self.files, self.ignores, base, head)
        return head, found.run(world(scans))

    def make_plan(
        self, head: str | None, changes: Sequence[Change], unwanted: Mapping[bytes, str]
    ) -> plan.Plan:
        self.files.forget_contents()
        self.plan = plan.make(self.objects, self.files, head, changes, unwanted)
        return self.plan

    def told(self, made: plan.Plan) -> list[tuple[str, bytes]]:
        """Kind and content of all that is new; none where that is not `sound.read`'s matter."""
        size = made.size + sum(map(len, made.trees.values()))
        if size > sound.MAX_BYTES or len(made.blobs) + len(made.trees) > sound.MAX_OBJECTS:
            return []
        blobs = plan.contents(made, self.files)
        return [
            *(("blob", data) for data in blobs),
            *(("tree", data) for data in made.trees.values()),
        ]

    def renamed(self, head: str | None, changes: list[Change]) -> list[tuple[Change, bytes]]:
        """The changes with the path that each was at before, where it was moved."""
        new = sum(change.state == ADDED and not change.submodule for change in changes)
        gone = sum(change.state == DELETED for change in changes)
        moved: Mapping[bytes, bytes] = {}
        if new and gone and max(new, gone) <= _RENAMES:
            moved = self._moves(head, changes)
        old = set(moved.values())
        return [
            (change._replace(state=RENAMED), moved[change.path])
            if change.path in moved
            else (change, b"")
            for change in changes
            if not (change.state == DELETED and change.path in old)
        ]

    def _moves(self, head: str | None, changes: Sequence[Change]) -> dict[bytes, bytes]:
        changes = [change for change in changes if _size(change) <= _RENAMED_FILE]
        if sum(map(_size, changes)) > _RENAMED_TOTAL:
            return {}
        made = self.make_plan(head, changes, {})
        with tempfile.TemporaryDirectory(dir=self.environment["COVE_SCRATCH"]) as folder:
            if plan.write_loose(made, self.files, Path(folder)):
                return {}
            output = subprocess.run(
                [
                    *("git", "diff-tree", "-r", "-z", "--raw", "--no-ext-diff", "--no-textconv"),
                    *("--find-renames", f"-l{_RENAMES}", "--diff-filter=R"),
                    *(head or EMPTY_TREE, made.tree),
                ],
                env=self.in_scratch(folder),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
            ).stdout
        fields = output.split(b"\0")[:-1]
        known = {change.path for change in changes if change.state == ADDED}
        return {
            new: old
            for _, old, new in zip(fields[::3], fields[1::3], fields[2::3], strict=True)
            if new in known
        }

    def in_scratch(self, folder: str) -> dict[str, str]:
        """Git's environment with new objects in `folder`."""
        store = self.environment["GIT_OBJECT_DIRECTORY"]
        return {
            **self.environment,
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": store,
        }

    def _tree(self, commit: str) -> str | None:
        return self.objects.tree_of(commit) if commit else None


def _size(change: Change) -> int:
    return change.leaf.size if change.leaf else 0


def look(payload: Payload, context: Context) -> Look:
    """The worktree as it is kept in `context`."""
    found = context.cache.get("look")
    wanted = payload["environment"], tuple(payload["roots"])
    if isinstance(found, Look) and (found.environment, found.roots) == wanted:
        return found
    if isinstance(found, Look):
        found.close()
    context.cache["look"] = made = Look(*wanted)
    return made


def changes(payload: Payload, descriptors: list[int], context: Context) -> Answer:
    """`entries`: path, state, old path, whether it is a submodule; at most `limit` of `total`."""
    here = look(payload, context)
    head, found = here.compare(payload, descriptors)
    if not payload["renames"]:
        listed = [(change, b"") for change in found]
    else:
        listed = here.renamed(head, found)
    entries, size = [], 0
    for change, old in listed[: int(payload["limit"])]:
        size += len(change.path) + len(old)
        if size > _PATH_BYTES:
            break
        text = change.path.rstrip(b"/").decode("latin-1")
        entries.append([text, change.state, old.decode("latin-1"), change.submodule])
    return {"entries": entries, "total": len(listed)}, []


def make(payload: Payload, descriptors: list[int], context: Context) -> Answer:
    """Plan the commit of what differs at or below `paths`; it is kept for what comes next.

    `items`: kind and content of all that is new, if that is little and holds still.
    """
    here = look(payload, context)
    head, found = here.compare(payload, descriptors)
    roots = [path.encode("latin-1") for path in payload["paths"]]
    unwanted = {path.encode("latin-1"): str(reason) for path, reason in payload["unwanted"].items()}
    made = here.make_plan(head, plan.selected(found, roots), unwanted)
    return {
        "tree": made.tree,
        "changed": len(made.paths),
        "objects": len(made.blobs) + len(made.trees),
        "bytes": made.size,
        "skipped": [[path.decode("latin-1"), reason] for path, reason in made.skipped],
        "items": here.told(made) if payload["told"] else [],
    }, []


def send(payload: Payload, descriptors: list[int], context: Context) -> Answer:
    """Write the plan as a pack into the descriptor. `unstable`: then it is of no use."""
    here = look(payload, context)
    assert here.plan
    with os.fdopen(os.dup(descriptors[0]), "wb", buffering=1 << 16) as pack:
        commit = payload["commit"].encode("latin-1")
        changed = plan.send(here.plan, here.files, commit, pack.write)
    here.files.forget_contents()
    return {"unstable": [path.decode("latin-1") for path in changed]}, []


def write(payload: Payload, _: list[int], context: Context) -> Answer:
    """Write the plan as loose objects into `folder`, which is made if need be."""
    here = look(payload, context)
    assert here.plan
    folder = Path(payload["folder"])
    folder.mkdir(exist_ok=True)
    changed = plan.write_loose(here.plan, here.files, folder)
    here.files.forget_contents()
    return {"unstable": [path.decode("latin-1") for path in changed]}, []


def which(payload: Payload, _: list[int], context: Context) -> Answer:
    """The paths of the plan that have the content `id`, which git did not take."""
    made = look(payload, context).plan
    assert made
    found = made.blobs.get(payload["id"])
    return {"paths": [found[2].decode("latin-1")] if found else []}, []


OPERATIONS: Final[Mapping[str, Operation]] = {
    "changes": changes,
    "plan": make,
    "send": send,
    "write": write,
    "which": which,
}
