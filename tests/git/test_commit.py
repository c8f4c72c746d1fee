"""Status and commits: whatever names and kinds of files there are."""

import asyncio
import mmap
import os
import shutil
import time
from pathlib import Path

import pytest

from services.git import changes, status
from services.git.changes import Skipped
from services.git.draft import Draft, Person
from services.git.errors import HeadMoved, NothingToCommit
from services.git.status import Change
from tests.git.parts import (
    CALLER,
    UID,
    Parts,
    add_commit,
    each_mode,
    inside,
    make_source,
    own,
    run_git,
    tree_of,
    write,
)

mode = each_mode

NAMES = [b"with space", b"line\nbreak", b"-dash", b"--version", b"caf\xc3\xa9", b"not-utf8-\xff"]
NAMES += [b'quote"', b"back\\slash", b":(glob)*", b"*", b"a/b/c/deep", b"tab\there"]


def in_store(git: Parts, *arguments: str) -> str:
    """Ask plain git about the repository."""
    [path] = (git.state / "git" / "repositories").glob("*/*.git")
    return run_git(path, *arguments)


async def test_what_a_status_that_was_broken_off_leaves_goes_with_the_next_one(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    inside(workspace).sh("for n in 1 2 3; do head -c 8000000 /dev/urandom >$n; done; rm README")

    async def look() -> int:
        async with workspace.lock:
            return (await status.read(workspace, workspace.head)).total

    looking = asyncio.ensure_future(look())
    while not list(workspace.paths.scratch.glob("tmp*")):
        assert not looking.done()
        await asyncio.sleep(0.001)
    looking.cancel()
    await asyncio.wait([looking])
    assert list(workspace.paths.scratch.glob("tmp*"))
    async with asyncio.timeout(60):
        while list(workspace.paths.scratch.iterdir()):
            assert await look() == 4


async def test_what_is_written_through_a_mapping_is_committed(git: Parts, source: Path) -> None:
    """It changes no times of the file, by which its content is known."""
    await git.create(source)
    record, workspace = await git.ready()
    path = write(workspace, "mapped", bytes(2 << 20))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0] = 1
        stat = path.stat()
        while time.time_ns() < stat.st_mtime_ns + 200_000_000:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        async with workspace.lock:
            await changes.plan(workspace, workspace.head, (), {})
        mapped[0] = 2
        if path.stat().st_mtime_ns != stat.st_mtime_ns:
            pytest.skip("the kernel has written it meanwhile")
        done = await git.committer.commit(record, workspace, Draft(message="Mapped"))
    assert done.skipped == []
    assert in_store(git, "cat-file", "blob", f"{done.commit}:mapped")[0] == "\x02"


async def test_many_long_paths_are_asked_for_in_pieces(git: Parts, source: Path) -> None:
    """All at once git would wait for its answers to be read, and who asks for git to read."""
    await git.create(source)
    _, workspace = await git.ready()
    deep = "/".join(["d" * 200] * 5)
    names = ", ".join(f"'{end}'" for end in ("o", "c"))
    script = f"import os\nos.makedirs('{deep}'); os.chdir('{deep}')\nfor n in range(120):\n"
    script += f" for end in ({names}): open(f'{{n:0200}}.{{end}}', 'w').close()\n"
    inside(workspace).run("/usr/bin/python3", "-c", script)
    write(workspace, ".gitignore", "*.o\n")
    async with asyncio.timeout(60), workspace.lock:
        found = await status.read(workspace, workspace.head)
    assert found.total == 121
    assert not any(entry.path.endswith(b".o") for entry in found.entries)


async def test_names_of_every_kind_are_committed(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    for name in NAMES:
        write(workspace, name, b"content of " + name)
    async with workspace.lock:
        entries = (await status.read(workspace, workspace.head)).entries
    assert [entry.path for entry in entries] == sorted(NAMES)
    done = await git.committer.commit(record, workspace, Draft(message="All"))
    assert done.skipped == []
    listed = in_store(git, "ls-tree", "-rz", "--name-only", done.commit)
    assert set(listed.split("\0")) - {""} == {os.fsdecode(name) for name in NAMES} | {
        "README",
        "src/a.txt",
    }


async def test_kinds_and_modes_are_committed(git: Parts, tmp_path: Path) -> None:
    files = {"plain": "1", "script": "2", "gone": "3", "tofile/x": "4", "todir": "5", "tolink": "6"}
    await git.create(make_source(tmp_path / "kinds", files))
    record, workspace = await git.ready()
    tree = tree_of(workspace)
    (tree / "script").chmod(0o755)
    (tree / "gone").unlink()
    shutil.rmtree(tree / "tofile")
    write(workspace, "tofile", "now a file")
    (tree / "todir").unlink()
    write(workspace, "todir/inner", "now a directory")
    (tree / "tolink").unlink()
    (tree / "tolink").symlink_to("/etc/passwd")
    write(workspace, "binary", bytes(range(256)) * 100)
    (tree / "empty").mkdir()
    os.mkfifo(tree / "pipe")
    own(workspace, tree / "tolink", tree / "empty", tree / "pipe")
    done = await git.committer.commit(record, workspace, Draft(message="Kinds"))
    assert done.skipped == []
    listed = in_store(git, "ls-tree", "-r", "--format=%(objectmode) %(path)", done.commit)
    assert set(listed.splitlines()) == {
        "100644 plain",
        "100755 script",
        "100644 tofile",
        "100644 todir/inner",
        "120000 tolink",
        "100644 binary",
    }
    assert in_store(git, "cat-file", "-p", f"{done.commit}:tolink") == "/etc/passwd"
    async with workspace.lock:
        assert (await status.read(workspace, workspace.head)).entries == []


async def test_a_path_that_git_refuses_does_not_block_the_rest(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    write(workspace, ".GIT/config", "[core]\n")
    write(workspace, "good", "good")
    path = write(workspace, "unreadable", "secret")
    path.chmod(0)
    done = await git.committer.commit(record, workspace, Draft(message="Some"))
    assert set(done.skipped) == {
        Skipped(b".GIT/config", "git does not allow this path"),
        Skipped(b"unreadable", "the file cannot be read, or is larger than 2 GiB"),
    }
    assert in_store(git, "show", f"{done.commit}:good") == "good"
    with pytest.raises(NothingToCommit):
        await git.committer.commit(record, workspace, Draft(message="Again"))


async def test_a_repository_inside_the_worktree_is_reported_and_left_out(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    inside(workspace).sh("git init -q inner; cd inner; echo x >a; git add a; git commit -qm x")
    write(workspace, "good", "good")
    async with workspace.lock:
        entries = (await status.read(workspace, workspace.head)).entries
    assert [(entry.path, entry.submodule) for entry in entries] == [
        (b"good", False),
        (b"inner", True),
    ]
    done = await git.committer.commit(record, workspace, Draft(message="Some"))
    assert [one.reason for one in done.skipped] == ["a repository of its own"]


async def test_a_rename_is_one_entry(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    inside(workspace).run("mv", "src/a.txt", "moved.txt")
    async with workspace.lock:
        [entry] = (await status.read(workspace, workspace.head)).entries
    assert (entry.work, entry.path, entry.old_path) == (
        Change.RENAMED,
        b"moved.txt",
        b"src/a.txt",
    )
    done = await git.committer.commit(record, workspace, Draft(message="Move"))
    assert in_store(git, "ls-tree", "-r", "--name-only", done.commit) == "README\nmoved.txt"


async def test_what_gitignore_excludes_is_neither_shown_nor_committed(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    write(workspace, ".gitignore", "*.log\n")
    write(workspace, "a.log", "log")
    done = await git.committer.commit(record, workspace, Draft(message="Ignore"))
    assert "a.log" not in in_store(git, "ls-tree", "-r", "--name-only", done.commit)


async def test_only_the_paths_named_are_committed(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    for name in ("README", "src/a.txt", "src/new", "src2"):
        write(workspace, name, "changed")
    draft = Draft(message="Part", paths=[b"src"])
    done = await git.committer.commit(record, workspace, draft)
    changed = in_store(git, "diff", "--name-only", record.base_commit, done.commit)
    assert changed == "src/a.txt\nsrc/new"
    async with workspace.lock:
        left = (await status.read(workspace, workspace.head)).entries
    assert [entry.path for entry in left] == [b"README", b"src2"]


async def test_author_is_the_requests_and_committer_the_servers(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    write(workspace, "new", "new")
    draft = Draft(
        message="Subject\n\nBody",
        author=Person("Zoë", "zoe@example.org"),
        trailers=[("Reviewed-by", "Ada")],
    )
    done = await git.committer.commit(record, workspace, draft)
    shown = in_store(git, "log", "-1", "--format=%an <%ae>|%cn|%B", done.commit)
    assert shown == "Zoë <zoe@example.org>|Cove|Subject\n\nBody\n\nReviewed-by: Ada"


async def test_an_expected_head_that_is_not_the_head_is_refused(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    write(workspace, "new", "new")
    with pytest.raises(HeadMoved):
        await git.committer.commit(record, workspace, Draft(message="x", expected_head="0" * 40))
    assert workspace.head == record.base_commit
    draft = Draft(message="x", expected_head=record.base_commit)
    assert await git.committer.commit(record, workspace, draft)


async def test_the_same_request_again_returns_the_same_commit(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    write(workspace, "new", "new")
    draft = Draft(message="x", request_id="1")
    first = await git.committer.commit(record, workspace, draft)
    assert await git.committer.commit(record, workspace, draft) == first


async def test_an_empty_repository_takes_its_first_commit(git: Parts) -> None:
    record = await git.create("")
    assert record.base_commit == ""
    _, workspace = await git.ready()
    write(workspace, "first", "first")
    done = await git.committer.commit(record, workspace, Draft(message="First"))
    assert in_store(git, "log", "--format=%s %P", done.commit) == "First"
    assert await git.worktrees.remove(UID, "acme")
    assert not list((git.state / "git" / "repositories").rglob("*"))


async def test_commits_and_fetches_at_once_do_not_disturb_each_other(
    git: Parts, source: Path
) -> None:
    await git.create(source, "a" * 16, branch="a")
    await git.create(source, "b" * 16, branch="b")

    async def commit(uid: str) -> None:
        record, workspace = await git.ready(uid)
        for number in range(4):
            write(workspace, f"{uid}-{number}", str(number))
            await git.committer.commit(record, workspace, Draft(message=str(number)))

    async def fetch() -> None:
        for number in range(6):
            add_commit(source, {f"new-{number}": "x"})
            await git.worktrees.fetch("a" * 16, CALLER)

    await asyncio.gather(commit("a" * 16), commit("b" * 16), fetch())
    for name in ("a", "b"):
        _, workspace = await git.ready(name * 16)
        assert in_store(git, "rev-list", "--count", workspace.head) == "5"


async def test_a_status_that_is_cut_still_counts(git: Parts, source: Path) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    inside(workspace).sh("for n in $(seq 10 59); do echo x$n >new-$n; done; rm README")
    async with workspace.lock:
        whole = await status.read(workspace, workspace.head)
        cut = await status.read(workspace, workspace.head, limit=7)
    assert (len(whole.entries), whole.total) == (51, 51)
    assert (list(cut.entries), cut.total) == (list(whole.entries)[:7], 51)
