"""The private `.git` of a sandbox: git works there, and what it makes comes out, checked."""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from cove.errors.v1.errors_pb2 import ErrorReason
from services.git import files, history, status
from services.git.draft import Draft
from services.git.errors import Diverged, InsideRejected, UnsavedWork
from services.git.forks import Wanted
from services.git.push import Target
from services.git.record import Mode
from services.git.remote import Rules
from services.git.workspace import Workspace
from tests.git.parts import (
    CALLER,
    OTHER,
    UID,
    Parts,
    add_commit,
    each_mode,
    inside,
    leave,
    parts,
    run_git,
    write,
)
from tests.git.program import Program

mode = each_mode


@pytest.fixture
async def workspace(git: Parts, source: Path) -> Workspace:
    """A new worktree."""
    await git.create(source)
    return (await git.ready())[1]


@pytest.fixture
def program(workspace: Workspace) -> Program:
    """Its program."""
    return inside(workspace)


async def messages(git: Parts) -> list[str]:
    """Of all commits of the branch, as they are listed outside."""
    _, workspace = await git.ready()
    found = await history.commits(workspace.repository, workspace.head, count=100)
    return [commit.message.strip() for commit in found]


async def differing(git: Parts) -> list[bytes]:
    _, workspace = await git.ready()
    async with workspace.lock:
        return [entry.path for entry in (await status.read(workspace, workspace.head)).entries]


async def commit(git: Parts, message: str = "Outside", **more: object) -> str:
    """Commit from outside."""
    record, workspace = await git.ready()
    draft = replace(Draft(message=message), **more)  # type: ignore[arg-type]
    return (await git.committer.commit(record, workspace, draft)).commit


def add(program: Program, name: str, content: str = "x") -> str:
    """Commit a file inside; the commit's id."""
    program.sh(f"echo {content} >{name}; git add {name}; git commit -qm 'Add {name}'")
    return program.git("rev-parse", "HEAD")


async def test_all_of_git_works_inside(git: Parts, program: Program, source: Path) -> None:
    head = run_git(source, "rev-parse", "HEAD")
    assert program.git("status", "--short", "--branch") == "## work"
    assert program.git("rev-parse", "HEAD", "work", "origin/main").split() == [head] * 3
    assert program.git("log", "--format=%s", "origin/main") == "Change"
    assert program.git("remote", "get-url", "origin") == f"file://{source}"
    program.sh("echo changed >README; git stash -q; cat README; git stash pop -q")
    assert program.git("status", "--short") == "M README"
    assert "+changed" in program.git("diff")
    program.git("commit", "-qam", "One")
    program.sh("git checkout -qb side HEAD~1; echo 1 >side; git add side; git commit -qm Side")
    program.sh("git checkout -q work; git rebase -q side; git branch -d side; git tag v1")
    assert program.git("log", "--format=%s") == "One\nSide\nChange"
    program.git("fsck", "--strict")
    program.git("gc", "-q", "--prune=now")
    assert await messages(git) == ["One", "Side", "Change"]
    assert await differing(git) == []


async def test_nothing_written_inside_reaches_the_repository_or_the_checkout(
    git: Parts, program: Program
) -> None:
    _, workspace = await git.ready()
    before = run_git(workspace.repository.path, "for-each-ref")
    add(program, "new")
    code, _, _ = program.attempt("sh", "-c", "echo x >/.cove/objects/x")
    assert code != 0
    program.sh("rm -rf README src; git update-ref -d refs/remotes/origin/main")
    assert run_git(workspace.repository.path, "for-each-ref") == before
    for lower in workspace.paths.lowers:
        assert (lower / "README").read_text() == "hello\n"


async def test_commits_made_inside_are_the_branchs(git: Parts, program: Program) -> None:
    first = add(program, "a")
    second = add(program, "b")
    assert await messages(git) == ["Add b", "Add a", "Change"]
    record, workspace = await git.ready()
    assert (workspace.head, record.inside) == (second, second)
    write(workspace, "c", "c")
    third = await commit(git)
    store = workspace.repository.path
    assert run_git(store, "rev-list", "--parents", "-2", third).splitlines() == [
        f"{third} {second}",
        f"{second} {first}",
    ]
    run_git(store, "fsck", "--strict", "--connectivity-only")
    program.git("reset", "-q", third)
    assert program.git("status", "--short") == ""
    fourth = add(program, "d")
    assert await messages(git) == ["Add d", "Outside", "Add b", "Add a", "Change"]
    assert (await git.ready())[1].head == fourth


async def test_the_first_commit_may_be_made_inside(git: Parts) -> None:
    await git.create("")
    _, workspace = await git.ready()
    program = inside(workspace)
    assert "No commits yet" in program.git("status")
    made = add(program, "first")
    assert await messages(git) == ["Add first"]
    assert await differing(git) == []
    write(workspace, "second", "x")
    assert await commit(git)
    assert run_git(workspace.repository.path, "rev-parse", f"{workspace.head}^") == made


@pytest.mark.parametrize(
    "script",
    [
        "git commit -q --amend -m Other",
        "git reset -q --hard HEAD~1; echo o >o; git add o; git commit -qm Other",
        "git checkout -q --detach; git commit -q --amend -m Other",
        "git checkout -qb elsewhere; git commit -q --amend -m Other",
        "git commit -q --amend -m Other; git pack-refs --all; git gc -q",
        "git checkout -q --orphan x; git commit -qm Change; git commit -q --allow-empty -m Other",
    ],
)
async def test_history_may_be_written_anew_inside(
    git: Parts, program: Program, script: str
) -> None:
    add(program, "a")
    assert await messages(git) == ["Add a", "Change"]
    program.sh(script)
    assert await messages(git) == ["Other", "Change"]
    record, workspace = await git.ready()
    assert workspace.head == record.inside == program.git("rev-parse", "HEAD")
    write(workspace, "new", "x")
    assert await commit(git)


async def test_a_head_that_goes_back_takes_the_branch_along(git: Parts, program: Program) -> None:
    add(program, "a")
    await git.ready()
    program.git("reset", "-q", "--hard", "HEAD~1")
    assert await messages(git) == ["Change"]


async def apart(git: Parts, program: Program) -> tuple[str, str]:
    """A commit inside, and one outside at the same time."""
    record, workspace = await git.ready()
    write(workspace, "outside", "x")
    made = add(program, "inside")
    draft = Draft(message="Outside", paths=[b"outside"])
    return made, (await git.committer.commit(record, workspace, draft)).commit


async def test_when_both_sides_went_on_the_one_outside_is_told(
    git: Parts, workspace: Workspace, program: Program
) -> None:
    _, head = await apart(git, program)
    assert await messages(git) == ["Outside", "Change"]
    assert await differing(git) == [b"inside"]
    with pytest.raises(Diverged) as caught:
        await commit(git)
    assert caught.value.reason == ErrorReason.ERROR_REASON_HEADS_DIVERGED
    assert f"git rebase {head}" in caught.value.remedy
    assert (await git.ready())[1].head == head
    program.sh(f"git add -A; git stash -q; git rebase -q {head}; git stash drop -q")
    assert await messages(git) == ["Add inside", "Outside", "Change"]
    assert await differing(git) == []
    write(workspace, "later", "x")
    assert await commit(git)


async def test_a_reset_to_the_head_outside_ends_it_too(
    git: Parts, workspace: Workspace, program: Program
) -> None:
    _, head = await apart(git, program)
    with pytest.raises(Diverged):
        await commit(git)
    program.git("reset", "-q", "--hard", head)
    write(workspace, "later", "x")
    await commit(git)
    assert await messages(git) == ["Outside", "Outside", "Change"]


async def test_what_was_committed_outside_is_not_undone_by_a_head_that_stays(
    git: Parts, workspace: Workspace, program: Program
) -> None:
    write(workspace, "new", "x")
    head = await commit(git)
    assert (await git.ready())[1].head == head
    program.git("reset", "-q", "--soft", "HEAD")  # Inside it still is the old one.
    assert await messages(git) == ["Outside", "Change"]
    write(workspace, "new", "y")
    assert await commit(git) != head


async def test_who_follows_commits_made_outside_has_no_git_asked(
    git: Parts, workspace: Workspace, program: Program
) -> None:
    async def distance() -> tuple[int, int]:
        record, workspace = await git.ready()
        return await history.distance(record, workspace, workspace.head)

    assert await distance() == (0, 0)
    made = []
    for number in range(3):
        write(workspace, "new", f"{number}")
        made.append(await commit(git))
    git.cells.names.clear()
    for number, head in enumerate(made):  # Inside they come one after the other.
        program.git("update-ref", "HEAD", head)
        record, _ = await git.ready()
        assert (record.inside, workspace.head) == (head, made[-1]), number
        assert await distance() == (3, 0)
    assert git.cells.names == []
    workspace.counted = ("", ""), (0, 0)
    assert await distance() == (3, 0)
    program.git("reset", "-q", "--hard", made[0])  # That is no following any more.
    assert (await git.ready())[1].head == made[0]
    assert await distance() == (1, 0)


async def test_a_head_that_went_back_is_behind_its_base(git: Parts, source: Path) -> None:
    for name in ("one", "two"):
        add_commit(source, {name: name})
    await git.create(source)

    async def distance() -> tuple[int, int]:
        record, workspace = await git.ready()
        return await history.distance(record, workspace, workspace.head)

    program = inside((await git.ready())[1])
    program.git("reset", "-q", "--hard", "HEAD~2")
    assert await distance() == (0, 2)
    add(program, "other")
    assert await distance() == (1, 2)
    add_commit(source, {"three": "three"})
    await git.worktrees.fetch(UID, CALLER)
    assert await distance() == (1, 3)
    program.git("reset", "-q", "--hard", "origin/main")
    assert await distance() == (0, 1)


async def test_nobody_waits_for_the_disk_with_all_others(
    git: Parts, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take seconds where others write much: the thread of the loop never does."""
    here, waited = threading.get_ident(), list[int]()

    def watch(place: ModuleType, name: str) -> None:
        wait = getattr(place, name)

        def told(descriptor: int) -> None:
            waited.append(threading.get_ident())
            wait(descriptor)

        monkeypatch.setattr(place, name, told)

    watch(os, "fsync")
    watch(files, "wait_written")

    def check() -> None:
        assert waited
        assert here not in waited
        waited.clear()

    await git.create(source)  # With a repository that is new, and what its origin has.
    check()
    _, workspace = await git.ready()
    write(workspace, "new", "x")
    made = await commit(git)
    inside(workspace).git("update-ref", "HEAD", made)
    assert (await git.ready())[0].inside == made
    check()
    leave(workspace)
    await git.forks.snapshot(UID, "acme", "one", copy_live=False)
    check()
    wanted = Wanted(uid=OTHER, source=UID, snapshot="", branch="other", copy_live=False)
    write(workspace, "newer", "x")
    leave(workspace)
    await git.forks.fork(wanted, "acme")
    check()
    assert await git.forks.remove_snapshot(UID, "acme", "one")
    check()
    assert await git.worktrees.remove(UID, "acme")
    check()
    add_commit(source, {"later": "x"})
    await git.worktrees.fetch(OTHER, CALLER)
    check()


async def test_a_crash_before_the_record_was_written_is_made_up_for(
    git: Parts, program: Program, mode: Mode | None
) -> None:
    before, workspace = await git.ready()
    made = add(program, "a")
    await git.ready()
    await git.records.keep(before)
    leave(workspace)
    rules = Rules(local_roots=[Path("/")])
    async with parts(git.state, rules, mode=mode) as again:
        record, workspace = await again.ready()
        assert (record.inside, workspace.head) == (made, made)
        write(workspace, "b", "x")
        assert await commit(again)


async def test_a_crash_before_those_inside_were_told_is_made_up_for(
    git: Parts, workspace: Workspace, mode: Mode | None
) -> None:
    write(workspace, "a", "x")
    first = workspace.head
    second = await commit(git)
    path = workspace.paths.outside / "head"
    said = path.read_bytes()
    path.unlink()
    async with parts(git.state, Rules(local_roots=[Path("/")]), mode=mode) as again:
        await again.ready()
        assert json.loads(path.read_bytes()) == json.loads(said)
        write((await again.ready())[1], "b", "x")
        third = await commit(again)
    told = json.loads(path.read_bytes())
    assert (told["from"], told["to"], told["before"]) == (second, third, [first])


async def test_too_many_commits_are_not_taken(
    git: Parts, workspace: Workspace, program: Program, mode: Mode | None
) -> None:
    for name in "abc":
        add(program, name)
    leave(workspace)
    rules = Rules(local_roots=[Path("/")])
    async with parts(git.state, rules, mode=mode, most_commits=2) as few:
        await refused(few, "more than 2 commits")
    async with parts(git.state, rules, mode=mode, most_commits=3) as enough:
        assert len(await messages(enough)) == 4


async def refused(git: Parts, cause: str) -> None:
    """Status answers as before; a commit from outside tells why."""
    began = time.monotonic()
    record, workspace = await git.ready()
    assert workspace.head == record.base_commit
    write(workspace, "differs", "x")
    assert await messages(git) == ["Change"]
    assert b"differs" in await differing(git)
    with pytest.raises(InsideRejected) as caught:
        await commit(git)
    assert caught.value.reason == ErrorReason.ERROR_REASON_COMMITS_REFUSED
    assert cause in f"{caught.value} {caught.value.metadata}"
    assert workspace.head == record.base_commit
    assert time.monotonic() - began < 30


def removed(program: Program, path: str) -> None:
    program.run("rm", "-f", path)


def overwritten(program: Program, path: str) -> None:
    program.sh(f"chmod u+w {path}; head -c 40 /dev/zero | tr '\\0' x >{path}")


def emptied(program: Program, path: str) -> None:
    program.sh(f"chmod u+w {path}; : >{path}")


def of_another(program: Program, path: str) -> None:
    """A whole object, under the name of another."""
    program.sh(
        "id=$(echo other | git hash-object -w --stdin)\n"
        f"from=.git/objects/$(echo $id | cut -c1-2)/$(echo $id | cut -c3-); cp -f $from {path}"
    )


def piped(program: Program, path: str) -> None:
    program.sh(f"rm -f {path}; mkfifo {path}")


def linked(program: Program, path: str) -> None:
    program.sh(f"mv {path} /workspace/kept; ln -s /workspace/kept {path}")


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        (removed, "HEAD"),
        (removed, "HEAD^{tree}"),
        (removed, "HEAD:a"),
        (removed, "HEAD~1"),
        (overwritten, "HEAD"),
        (overwritten, "HEAD:a"),
        (emptied, "HEAD^{tree}"),
        (of_another, "HEAD:a"),
        (of_another, "HEAD^{tree}"),
        (piped, "HEAD"),
        (piped, "HEAD:a"),
        (linked, "HEAD~1"),
    ],
)
async def test_commits_with_damaged_objects_are_not_taken(
    git: Parts, program: Program, harm: Callable[[Program, str], None], name: str
) -> None:
    add(program, "b", "first")
    add(program, "a", "content")
    identifier = program.git("rev-parse", name)
    harm(program, f".git/objects/{identifier[:2]}/{identifier[2:]}")
    await refused(git, "")
    # As soon as it is whole, it is taken.
    program.sh("rm -rf .git/objects/??; git update-ref HEAD origin/main; git reset -q")
    add(program, "again")
    assert await messages(git) == ["Add again", "Change"]


@pytest.mark.parametrize(
    ("tree", "rule"),
    [
        ("100644 blob {blob}\t.git\n", "Dotgit"),
        ("100644 blob {blob}\ta\n100644 blob {blob}\ta\n", "duplicate"),
        ("100644 blob {blob}\t..\n", "Dotdot"),
        ("100644 blob {modules}\t.gitmodules\n", "gitmodules"),
    ],
)
async def test_commits_that_git_refuses_are_not_taken(
    git: Parts, program: Program, tree: str, rule: str
) -> None:
    modules = '[submodule "x"]\n\turl = --upload-pack=evil\n\tpath = x\n'
    blob = program.git("hash-object", "-w", "--stdin", stdin=b"x")
    evil = program.git("hash-object", "-w", "--stdin", stdin=modules.encode())
    raw = b""
    for line in tree.format(blob=blob, modules=evil).splitlines():
        about, name = line.split("\t")
        mode, _, identifier = about.split(" ")
        raw += f"{mode} {name}\0".encode() + bytes.fromhex(identifier)
    made = program.git("hash-object", "-wt", "tree", "--literally", "--stdin", stdin=raw)
    program.git("update-ref", "HEAD", program.git("commit-tree", "-p", "HEAD", "-m", "x", made))
    await refused(git, rule)


@pytest.mark.parametrize(
    "script",
    [
        "rm -rf .git/HEAD; ln -s /etc/passwd .git/HEAD",
        "rm -rf .git/HEAD; ln -s refs/heads/work .git/HEAD",
        "rm -rf .git/HEAD; mkfifo .git/HEAD",
        "rm -rf .git/HEAD; mkdir .git/HEAD",
        "rm -rf .git/HEAD; truncate -s 8T .git/HEAD || truncate -s 2G .git/HEAD",
        "rm -rf .git/HEAD; head -c 20000000 /dev/zero >.git/HEAD",
        "rm -rf .git/HEAD; echo 'ref: refs/heads/../../../../../etc/passwd' >.git/HEAD",
        "rm -rf .git/HEAD; echo 'ref: /etc/passwd' >.git/HEAD",
        "rm -rf .git/HEAD; echo 'ref: refs/heads/none' >.git/HEAD",
        "rm -rf .git/HEAD; echo $(git rev-parse HEAD)0 >.git/HEAD",
        "rm -rf .git/HEAD; printf 'ref: refs/heads/%04096d' 1 >.git/HEAD",
        "rm -rf .git/HEAD; (printf 'ref: refs/heads/'; yes a/ | head -n 5000 | tr -d '\\n'; "
        "echo a) >.git/HEAD",
        "rm -rf .git/HEAD; : >.git/HEAD",
        "rm .git/HEAD",
        "git symbolic-ref refs/heads/loop refs/heads/work; "
        "echo 'ref: refs/heads/loop' >.git/refs/heads/work",
        "rm -rf .git/refs/heads/work; mkfifo .git/refs/heads/work",
        "rm -rf .git/refs/heads/work; ln -s ../../HEAD .git/refs/heads/work",
        "rm -rf .git/refs/heads/work; echo garbage >.git/refs/heads/work",
        "rm -rf .git/refs/heads; ln -s /tmp .git/refs/heads",
        "rm -rf .git/refs; mkfifo .git/refs",
        "rm -rf .git",
        "rm -rf .git; mkfifo .git",
        "rm -rf .git; ln -s / .git",
        "rm -rf .git; echo 'gitdir: /tmp' >.git",
    ],
)
async def test_a_head_that_says_nothing_changes_nothing(
    git: Parts, workspace: Workspace, program: Program, script: str
) -> None:
    record, _ = await git.ready()
    # Not the packed one, which would show through.
    program.sh(f"git pack-refs --all --prune; : >.git/packed-refs; {script}")
    began = time.monotonic()
    write(workspace, "new", "x")
    assert await differing(git) == [b"new"]
    made = await commit(git)
    assert await messages(git) == ["Outside", "Change"]
    [parent] = run_git(workspace.repository.path, "log", "-1", "--format=%P", made).splitlines()
    assert parent == record.base_commit
    assert time.monotonic() - began < 30


async def test_a_head_that_is_no_commit_is_not_taken(git: Parts, program: Program) -> None:
    tree = program.git("rev-parse", "HEAD^{tree}")
    program.sh("git tag -a v1 -m x; git hash-object -w --stdin </dev/null")
    tag = program.git("rev-parse", "v1")
    for identifier in (tree, tag, "1" * 40):
        program.sh(f"echo {identifier} >.git/HEAD")
        await refused(git, "")


async def test_packed_refs_are_read_as_git_does(git: Parts, program: Program) -> None:
    made = add(program, "a")
    program.sh("git branch work2; git branch x-work HEAD~1; git pack-refs --all")
    assert (await git.ready())[1].head == made
    other = program.git("rev-parse", "HEAD~1")
    program.git("update-ref", "refs/heads/work", other)  # A loose one wins.
    assert (await git.ready())[1].head == other


async def test_objects_of_the_origin_are_not_sent_again(
    git: Parts, program: Program, tmp_path: Path
) -> None:
    _, workspace = await git.ready()
    packs = set((workspace.repository.objects / "pack").glob("*.pack"))
    made = add(program, "a")
    await git.ready()
    [pack] = set((workspace.repository.objects / "pack").glob("*.pack")) - packs
    listed = run_git(workspace.repository.path, "verify-pack", "-v", str(pack.with_suffix(".idx")))
    assert made in listed
    assert len([line for line in listed.splitlines() if " commit " in line]) == 1


async def test_commits_that_were_not_taken_are_work_that_a_removal_keeps(
    git: Parts, workspace: Workspace, program: Program
) -> None:
    """Also where the files are those of the head outside, and the origin has that."""
    write(workspace, "outside", "x")
    await commit(git)
    await git.pusher.push(*await git.ready(), Target(), CALLER)
    program.sh("echo 1 >only; git add only outside; git commit -qm Only")
    program.sh("git rm -q only; git commit -qm Gone")
    assert await differing(git) == []
    leave(workspace)
    with pytest.raises(UnsavedWork):
        await git.worktrees.remove(UID, "acme", keep_unsaved=True)
    assert inside(workspace).git("log", "--format=%s").split() == ["Gone", "Only", "Change"]
    leave(workspace)
    assert await git.worktrees.remove(UID, "acme")


async def test_what_broke_off_when_commits_were_taken_is_tried_again(
    git: Parts, workspace: Workspace, program: Program
) -> None:
    head = add(program, "a")
    git.cells.doomed = "pack-objects"
    await git.ready()
    assert workspace.head != head
    await git.ready()
    assert workspace.head == head
    write(workspace, "b", "x")
    assert await commit(git)
