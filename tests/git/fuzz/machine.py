"""One worktree that is changed from inside and from outside, and looked at by both gits.

After each step: what the service says of status, diff and the tree of a commit is what stock git
says of the mounted files, on top of the head that the service has.
"""

import itertools
import re
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.git import changes, diff, status
from services.git.diff import File, Limits, Patch
from services.git.draft import Draft
from services.git.errors import NothingToCommit
from services.git.forks import Wanted
from services.git.record import Record
from services.git.status import Change
from services.git.workspace import Workspace
from tests.git.fuzz.service import Program, Service
from tests.git.parts import CALLER

_NAMES: Final = (b"a", b"b", b"c", b"d e", b"n\nl", b"\xff\xfe", b"-x", b"x.o", b"build", b"lib")
_TARGETS: Final = (b"nowhere", b"../nowhere", b"/nowhere/file", b".", b"..")
_IGNORES: Final = (
    *(b"*.o\n", b"build/\n", b"/lib\n!a\n", b"a\n", b"b/*\n!b/c\n", b"", b"*\n!*/\n!a\n"),
    *(b"**/c\n", b"lib/**/x.o\n", b"/*\n!/b\n", b"\\-x\n", b"[ab]\n", b"# a\nd e \n", b"!x.o\n"),
)
_BINARY: Final = b"Binary files "
_FIFO: Final = b".fifo"
_RENAMED: Final = re.compile(rb"^similarity index 100%$", re.MULTILINE)

odd_names = st.binary(min_size=1, max_size=12).filter(
    lambda name: (
        not {b"/", b"\0"} & {bytes([each]) for each in name}
        and name not in (b".", b"..")
        and b"git" not in name.lower()
    )
)
names = st.one_of(st.sampled_from(_NAMES), st.sampled_from(_NAMES), odd_names)
paths = st.lists(st.sampled_from(_NAMES), max_size=2).flatmap(
    lambda above: names.map(lambda name: b"/".join([*above, name]))
)
lines = st.lists(st.integers(0, 30), max_size=12).map(
    lambda numbers: b"".join(b"line %d\n" % number for number in numbers)
)
contents = st.one_of(lines, lines, st.sampled_from([b"", b"a\0b\n", b"no newline", b"a\r\nb\r\n"]))
picks = st.integers(0, 1 << 16)
modes = st.sampled_from([0o644, 0o755, 0o600, 0o700, 0o654])
_numbers: Final = itertools.count()


class Worktree(RuleBasedStateMachine):
    """The rules. A subclass has the service and its origin."""

    service: Service
    origin: Path
    rounds = 0

    def __init__(self) -> None:
        super().__init__()
        self.uid = _new_uid()
        self.former: list[str] = []
        """Worktrees that this one was forked of."""
        self.snapshots: dict[str, tuple[str, str, str]] = {}
        """Of which worktree each is, its head, and the tree of its files."""
        self.program: Program | None = None

    @initialize(revision=st.sampled_from(["main", "other"]))
    def create(self, revision: str) -> None:
        wanted = self.service.parts.create(
            self.origin, self.uid, revision=revision, branch=self.uid, max_staleness=3600
        )
        self.service.call(wanted)
        self._mount()

    def teardown(self) -> None:
        self._unmount()
        for uid in (*self.former, self.uid):
            self.service.call(self.service.parts.worktrees.remove(uid, CALLER.tenant))

    # What programs do to files.

    @rule(path=paths, data=contents)
    def write(self, path: bytes, data: bytes) -> None:
        self._inside.edit("write", path, data)

    @rule(pick=picks, data=lines)
    def append(self, pick: int, data: bytes) -> None:
        self._edit_one("append", pick, data)

    @rule(pick=picks, byte=st.integers(32, 126))
    def write_as_much(self, pick: int, byte: int) -> None:
        self._edit_one("same size", pick, byte)

    @rule(pick=picks)
    def touch(self, pick: int) -> None:
        self._edit_one("touch", pick)

    @rule(pick=picks, mode=modes)
    def chmod(self, pick: int, mode: int) -> None:
        self._edit_one("chmod", pick, mode)

    @rule(pick=picks)
    def remove(self, pick: int) -> None:
        self._edit_one("remove", pick)

    @rule(pick=picks, name=names, data=contents)
    def make_directory_of(self, pick: int, name: bytes, data: bytes) -> None:
        self._edit_one("to directory", pick, name, data)

    @rule(pick=picks, data=contents)
    def make_file_of(self, pick: int, data: bytes) -> None:
        self._edit_one("to file", pick, data)

    @rule(pick=picks, to=st.sampled_from(_TARGETS))
    def make_link_of(self, pick: int, to: bytes) -> None:
        self._edit_one("to link", pick, to)

    @rule(path=paths, to=st.sampled_from(_TARGETS))
    def link(self, path: bytes, to: bytes) -> None:
        self._inside.edit("link", path, to)

    @rule(pick=picks, path=paths)
    def link_hard(self, pick: int, path: bytes) -> None:
        self._edit_one("hard link", pick, path)

    @rule(pick=picks, path=paths)
    def rename(self, pick: int, path: bytes) -> None:
        self._edit_one("rename", pick, path)

    @rule(pick=picks)
    def rename_beside(self, pick: int) -> None:
        for path in self._one(pick):
            self._inside.edit("rename", path, path + b"-m")

    @rule(pick=picks, other=picks)
    def rename_over(self, pick: int, other: int) -> None:
        for path in self._one(other):
            self._edit_one("rename", pick, path)

    @rule(path=paths)
    def make_empty_directory(self, path: bytes) -> None:
        self._inside.edit("mkdir", path)

    @rule(name=names)
    def make_fifo(self, name: bytes) -> None:
        self._inside.edit("fifo", name + _FIFO)

    @rule(above=st.lists(st.sampled_from(_NAMES), max_size=2), data=st.sampled_from(_IGNORES))
    def ignore(self, above: list[bytes], data: bytes) -> None:
        self._inside.edit("write", b"/".join([*above, b".gitignore"]), data)

    # What git inside does.

    @rule(pick=picks)
    def stage_one(self, pick: int) -> None:
        for path in self._one(pick):
            self._git(["--literal-pathspecs", "add", "--", path.decode("latin-1")])

    @rule(
        step=st.sampled_from(
            [
                [["add", "-A"]],
                [["commit", "-qam", "Inside"]],
                [["add", "-A"], ["commit", "-qm", "All inside"]],
                [["commit", "-qm", "Staged"]],
                [["commit", "-q", "--amend", "--no-edit", "-a"]],
                [["commit", "-q", "--allow-empty", "-m", "Empty"]],
                [["reset", "-q", "--soft", "HEAD~1"], ["commit", "-qm", "Soft"]],
                [["reset", "-q", "--hard", "HEAD~1"]],
                [["reset", "-q", "--hard"]],
                [["reset", "-q"]],
                [["stash", "-u", "-q"]],
                [["stash", "pop", "-q"]],
                [["checkout", "-q", "HEAD~1", "--", "."]],
                [["clean", "-fdqx"]],
                [["rm", "-rq", "--cached", "."]],
                [["rebase", "-q", "origin/other"]],
                [["rebase", "--abort"]],
                [["merge", "-q", "--no-edit", "-Xours", "origin/other"]],
                [["merge", "-q", "--no-edit", "origin/main"]],
                [["merge", "--abort"]],
                [["branch", "-f", "side"], ["reset", "-q", "--hard", "HEAD~1"]],
                [["merge", "-q", "--no-ff", "--no-edit", "side"]],
                [["revert", "--no-edit", "HEAD"]],
                [["gc", "-q"]],
                [["pack-refs", "--all"]],
            ]
        )
    )
    def run_git(self, step: list[list[str]]) -> None:
        self._git(*step)

    # What happens outside.

    @rule()
    def commit(self) -> None:
        self._commit([])

    @rule(picked=st.lists(picks, min_size=1, max_size=3), above=st.booleans())
    def commit_some(self, picked: list[int], above: bool) -> None:
        found = sorted({path for _, *both in self._raw(self._truth()) for path in both if path})
        if not found:
            return
        chosen = [found[pick % len(found)] for pick in picked]
        if above:
            chosen = [path.rpartition(b"/")[0] or path for path in chosen]
        # What is gone below a link that has come, stock git does not take by its name.
        here = set(self._inside.paths)
        named = {path for path in chosen if here.isdisjoint(_above(path))}
        if named:
            self._commit(sorted(named))

    @rule()
    def forget_what_was_seen(self) -> None:
        """As after a restart of the cells."""
        directory = self.service.parts.records.directory(self.uid)
        self.service.call(self.service.parts.cells.drop(directory))

    @rule(outside=st.booleans())
    def sleep_and_wake(self, outside: bool) -> None:
        """Nothing is mounted, and perhaps a commit is made, of which the inside hears later."""
        before = self._truth()
        self._unmount()
        assert self._seen() == _shown(before)
        if outside:
            self._commit_asleep(before["tree"])
        self._mount()

    @rule(live=st.booleans(), stay=st.booleans())
    def fork(self, live: bool, stay: bool) -> None:
        """Go on with a fork, or with what it was made of."""
        before, head = self._truth(), self._ready()[1].head
        self._unmount_unless(live)
        made = self._fork(self.uid, "", copy_live=live)
        self._expect(made, head, before["tree"])
        self._go_on(made, stay=stay)

    @rule(live=st.booleans())
    def take_snapshot(self, live: bool) -> None:
        before, head = self._truth(), self._ready()[1].head
        self._unmount_unless(live)
        name = _new_uid()
        taking = self.service.parts.forks.snapshot(self.uid, CALLER.tenant, name, copy_live=live)
        self.service.call(taking)
        self.snapshots[name] = (self.uid, head, before["tree"])
        self._mount_if_not()

    @precondition(lambda self: self.snapshots)
    @rule(pick=picks, stay=st.booleans())
    def fork_of_a_snapshot(self, pick: int, stay: bool) -> None:
        name = sorted(self.snapshots)[pick % len(self.snapshots)]
        source, head, tree = self.snapshots[name]
        made = self._fork(source, name)
        self._expect(made, head, tree)
        self._go_on(made, stay=stay)

    @precondition(lambda self: self.snapshots)
    @rule(pick=picks)
    def remove_a_snapshot(self, pick: int) -> None:
        name = sorted(self.snapshots)[pick % len(self.snapshots)]
        source, *_ = self.snapshots.pop(name)
        removing = self.service.parts.forks.remove_snapshot(source, CALLER.tenant, name)
        assert self.service.call(removing)

    @precondition(lambda self: self.former)
    @rule(pick=picks)
    def remove_a_former_one(self, pick: int) -> None:
        """What was forked of it stands on its layers."""
        uid = self.former.pop(pick % len(self.former))
        self.snapshots = {name: one for name, one in self.snapshots.items() if one[0] != uid}
        assert self.service.call(self.service.parts.worktrees.remove(uid, CALLER.tenant))

    @precondition(lambda self: self.program is not None)
    @invariant()
    def both_see_the_same(self) -> None:
        type(self).rounds += 1
        truth = self._truth()
        assert self._seen() == _shown(truth)
        assert self._patches() == _text_patches(truth)

    # How.

    @property
    def _inside(self) -> Program:
        assert self.program
        return self.program

    def _ready(self, uid: str = "") -> tuple[Record, Workspace]:
        record, workspace = self.service.call(self.service.parts.ready(uid or self.uid))
        assert workspace.astray is None, workspace.astray
        return record, workspace

    def _mount(self) -> None:
        _, workspace = self._ready()
        self.program = Program(workspace)
        self._follow()

    def _follow(self) -> None:
        """What the agent does: let the git inside follow. Both sides then have one head."""
        _, workspace = self._ready()
        self._inside.ask("follow")
        assert self._inside.ask("tip")["tip"] == workspace.head

    def _unmount(self) -> None:
        if self.program is not None:
            self.program.close()
            self.program = None

    def _unmount_unless(self, live: bool) -> None:
        if not live:
            self._unmount()

    def _mount_if_not(self) -> None:
        if self.program is None:
            self._mount()

    def _fork(self, source: str, snapshot: str, *, copy_live: bool = False) -> str:
        uid = _new_uid()
        wanted = Wanted(uid=uid, source=source, snapshot=snapshot, branch=uid, copy_live=copy_live)
        self.service.call(self.service.parts.forks.fork(wanted, CALLER.tenant))
        return uid

    def _expect(self, uid: str, head: str, tree: str) -> None:
        _, workspace = self._ready(uid)
        assert workspace.head == head
        assert self._planned(workspace) == tree

    def _go_on(self, made: str, *, stay: bool) -> None:
        if stay:
            self.former.append(made)
            self._mount_if_not()
            return
        self._unmount()
        self.former.append(self.uid)
        self.uid = made
        self._mount()

    def _one(self, pick: int) -> Iterator[bytes]:
        if found := self._inside.paths:
            yield found[pick % len(found)]

    def _edit_one(self, what: str, pick: int, *more: bytes | int) -> None:
        for path in self._one(pick):
            if _FIFO in path and what in ("rename", "hard link"):
                continue  # Where a tracked file was, stock git refuses to add anything then.
            self._inside.edit(what, path, *more)

    def _git(self, *steps: list[str]) -> None:
        self._inside.git(*steps)
        _, workspace = self._ready()
        assert self._inside.ask("tip")["tip"] == workspace.head

    def _commit(self, chosen: list[bytes]) -> None:
        record, workspace = self._ready()
        truth = self._truth(chosen)
        draft = Draft(message="Outside", paths=chosen)
        committing = self.service.parts.committer.commit(record, workspace, draft)
        if not truth["raw"]:
            self._nothing(committing)
            return
        done = self.service.call(committing)
        assert (done.made.tree, list(done.skipped)) == (truth["tree"], [])
        self._follow()

    def _nothing(self, committing: Any) -> None:
        try:
            self.service.call(committing)
        except NothingToCommit:
            return
        raise AssertionError("a commit of nothing was made")

    def _commit_asleep(self, tree: str) -> None:
        record, workspace = self._ready()
        draft = Draft(message="Asleep")
        try:
            done = self.service.call(self.service.parts.committer.commit(record, workspace, draft))
        except NothingToCommit:
            return
        assert done.made.tree == tree

    def _truth(self, chosen: list[bytes] | None = None) -> dict[str, str]:
        _, workspace = self._ready()
        named = [path.decode("latin-1") for path in chosen or []]
        return self._inside.ask("truth", head=workspace.head, paths=named)

    def _seen(self) -> tuple[str, set[tuple[str, bytes, bytes]]]:
        """The tree of a commit, and status."""
        _, workspace = self._ready()

        async def look() -> tuple[str, set[tuple[str, bytes, bytes]]]:
            async with workspace.lock:
                planned = await changes.plan(workspace, workspace.head, [], {})
                found = await status.read(workspace, workspace.head)
            assert not planned.skipped
            assert found.total == len(found.entries)
            return planned.tree, {_entry(each) for each in found.entries}

        return self.service.call(look())

    def _planned(self, workspace: Workspace) -> str:
        async def look() -> str:
            async with workspace.lock:
                return (await changes.plan(workspace, workspace.head, [], {})).tree

        return self.service.call(look())

    def _patches(self) -> bytes:
        """Those of text. Of another type is a file where one side may be binary: left out too."""
        _, workspace = self._ready()

        async def look() -> bytes:
            found, left_out = b"", False
            events = diff.of_work(workspace, workspace.head, [], Limits())
            async with aclosing(events) as stream:
                async for event in stream:
                    if isinstance(event, File):
                        left_out = event.binary or event.change is Change.TYPE_CHANGED
                    elif isinstance(event, Patch) and not left_out:
                        found += event.data
            return _comparable(found)

        return self.service.call(look())

    @staticmethod
    def _raw(truth: dict[str, str]) -> Iterator[tuple[str, bytes, bytes]]:
        """State, path, and the path before a rename."""
        fields = iter(truth["raw"].encode("latin-1").split(b"\0")[:-1])
        for about in fields:
            state, first = about.split(b" ")[4][:1].decode(), next(fields)
            yield (state, next(fields), first) if state == "R" else (state, first, b"")


def _new_uid() -> str:
    number = next(_numbers)
    return "".join(chr(97 + number // 26**place % 26) for place in range(16))


def _entry(entry: status.Entry) -> tuple[str, bytes, bytes]:
    state = "A" if entry.work is Change.UNTRACKED else entry.work.value
    return state, entry.path, entry.old_path


def _shown(truth: dict[str, str]) -> tuple[str, set[tuple[str, bytes, bytes]]]:
    return truth["tree"], set(Worktree._raw(truth))  # noqa: SLF001


def _above(path: bytes) -> Iterator[bytes]:
    """The directories a path is in."""
    while path := path.rpartition(b"/")[0]:
        yield path


def _text_patches(truth: dict[str, str]) -> bytes:
    """Those of files that are no binary ones: git tells apart what is to be read by both sides."""
    return _comparable(truth["patch"].encode("latin-1"))


def _comparable(patch: bytes) -> bytes:
    """Patches without those of which git does not say whether they are of a binary file: where it
    was renamed and is the same. And without ids, as there may be more objects on one side."""
    parts = re.split(rb"^(?=diff --git )", patch, flags=re.MULTILINE)
    said = [part for part in parts if b"\n" + _BINARY not in part and not _RENAMED.search(part)]
    ids = rb"^index [0-9a-f]+\.\.[0-9a-f]+"
    return re.sub(ids, b"index", b"".join(said), flags=re.MULTILINE)
