"""What a repository of this machine may try on the host, as whose owner git reads it."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from services.git.command import Command
from services.git.credentials import Credentials
from services.git.errors import RepositoryNotFound
from services.git.remote import Rules
from tests.git.parts import OTHER, Parts, add_commit, make_source, parts, run_git

DIRTY = "the repository has uncommitted changes, which were not taken"
UNKNOWN = "uncommitted changes of the repository, if it has any, were not taken"


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Path, asyncio.Event]]:
    """A socket of the host that everyone may reach, and whether somebody did."""
    reached = asyncio.Event()

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()
        await writer.wait_closed()

    with tempfile.TemporaryDirectory(prefix="cove") as name:
        Path(name).chmod(0o755)
        path = Path(name) / "socket"
        async with await asyncio.start_unix_server(note, path):
            path.chmod(0o777)
            yield path, reached


def plant(source: Path, script: str) -> None:
    """Have git status on `source` run a filter: a file differs and has its size."""
    run_git(source, "config", "filter.evil.clean", script)
    (source / ".gitattributes").write_text("* filter=evil\n")
    (source / "README").write_text("HELLO\n")


@pytest.mark.parametrize("linked", [False, True], ids=["main worktree", "linked worktree"])
async def test_a_filter_of_the_origin_is_not_run_to_see_whether_it_is_dirty(
    linked: bool, git: Parts, source: Path, tmp_path: Path
) -> None:
    used = source
    if linked:
        used = tmp_path / "linked"
        run_git(source, "worktree", "add", "-q", "-b", "side", str(used))
    async with listening() as (socket, reached):
        connect = "use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0);"
        connect += f'connect(S, pack_sockaddr_un("{socket}"))'
        # A mark in the repository, another outside, and a connection: any would tell.
        mark, inside = tmp_path / "mark", source / ".git" / "mark"
        plant(used, f"perl -e '{connect}'; mkdir -p {mark} {inside}; cat")
        await asyncio.to_thread(run_git, used, "status")
        async with asyncio.timeout(30):
            await reached.wait()
        assert mark.exists(), "the attack does not work on plain git: it shows nothing"
        assert inside.exists()
        mark.rmdir()
        inside.rmdir()
        reached.clear()
        (used / "README").write_text("Hello\n")
        record = await git.create(used)
        assert not reached.is_set()
        assert not mark.exists()
        assert not inside.exists()
        assert record.warnings == (DIRTY,)


async def test_who_serves_a_repository_sees_nothing_else_of_its_owner(
    git: Parts, source: Path
) -> None:
    (source.parent / "private").write_text("private")
    rules = Rules(local_roots=[Path("/")], closed=git.state)
    cell, _ = git.local.listing(rules.parse(f"file://{source}"))
    script = f"ls -A {source.parent} {source} {git.state} /run /tmp /etc /root /home"
    command = Command(name="sh", argv=("sh", "-c", script), env={"PATH": "/usr/bin:/bin"})
    output = (await git.cells.run(cell, command)).output.decode().split()
    names = {name for name in output if not name.endswith(":")}
    first = source.relative_to("/").parts[1]  # What leads to it.
    assert names - {first, source.name, ".git", "ld.so.cache", "alternatives"} <= {"cell"}


@pytest.mark.parametrize(
    "setting",
    [
        ("uploadpack.packObjectsHook", "MARK"),
        ("core.fsmonitor", "MARK"),
        ("core.sshCommand", "MARK"),
        ("core.gitProxy", "MARK"),
        ("core.alternateRefsCommand", "MARK"),
        ("core.pager", "MARK"),
        ("core.hooksPath", "hooks"),
        ("gc.recentObjectsHook", "MARK"),
        ("receive.procReceiveRefs", "refs"),
        ("diff.external", "MARK"),
    ],
    ids=lambda setting: setting[0],
)
async def test_no_program_that_an_origin_names_is_run(
    setting: tuple[str, str], git: Parts, source: Path, tmp_path: Path
) -> None:
    lender = make_source(tmp_path / "lender")
    (source / ".git/objects/info").mkdir(exist_ok=True)
    (source / ".git/objects/info/alternates").write_text(f"{lender}/.git/objects\n")
    mark = source / ".git" / "mark"
    script = f"#!/bin/sh\nmkdir -p {mark}\nexit 1\n"
    for name in ("hooks/pre-receive", "hooks/update", "hooks/proc-receive", "evil"):
        path = source / ".git" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    key, value = setting
    evil = str(source / ".git" / ("hooks" if value == "hooks" else "evil"))
    run_git(source, "config", key, value if value == "refs" else evil)
    run_git(source, "config", "receive.autogc", "true")
    run_git(source, "config", "gc.auto", "1")
    await git.create(source)
    remote = Rules(local_roots=[Path("/")]).parse(f"file://{source}")
    async with AsyncExitStack() as stack:
        await git.local.serve(stack, remote, writing=True)
    record, workspace = await git.ready()
    refspec = f"{workspace.head}:refs/heads/new"
    store = workspace.repository.path
    await git.transport.push(remote, Credentials(), store, refspec, None)
    assert not mark.exists()
    assert record.repository == remote.url


async def test_an_origin_that_borrows_objects_is_cloned(
    git: Parts, source: Path, tmp_path: Path
) -> None:
    borrower = tmp_path / "borrower"
    run_git(tmp_path, "clone", "-q", "--shared", str(source), str(borrower))
    head = add_commit(borrower, {"more": "x"})
    record = await git.create(borrower)
    assert (record.base_commit, record.warnings) == (head, ())


async def test_an_origin_that_says_it_lies_in_our_state_is_not_there(
    git: Parts, source: Path, tmp_path: Path
) -> None:
    await git.create(source)
    _, workspace = await git.ready()
    liar = tmp_path / "liar"
    liar.mkdir()
    (liar / ".git").write_text(f"gitdir: {workspace.repository.path}\n")
    with pytest.raises(RepositoryNotFound):
        await git.create(liar, OTHER)
    (liar / ".git").unlink()
    shutil.copytree(source / ".git", liar / ".git")
    (liar / ".git/objects/info").mkdir(exist_ok=True)
    objects = f"{workspace.repository.objects}\n"
    (liar / ".git/objects/info/alternates").write_text(objects)
    cell, _ = git.local.listing(Rules(local_roots=[Path("/")]).parse(f"file://{liar}"))
    assert [bind.source for bind in cell.lent] == [liar / ".git"]


async def test_a_repository_around_our_state_is_not_there(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "-q", "--bare", str(tmp_path / "around"))
    state = tmp_path / "around" / "state"
    state.mkdir()
    rules = Rules(local_roots=[Path("/")], closed=state)
    async with parts(state, rules) as git:
        with pytest.raises(RepositoryNotFound):
            await git.create(tmp_path / "around")


@pytest.mark.parametrize("dirt", ["nothing", "staged", "untracked", "ignored", "excluded"])
async def test_uncommitted_work_in_the_origin_is_told(dirt: str, git: Parts, source: Path) -> None:
    if dirt == "ignored":
        add_commit(source, {".gitignore": "new\n"})
    (source / ".git/info").mkdir(exist_ok=True)
    (source / ".git/info/exclude").write_text("new\n" if dirt == "excluded" else "")
    if dirt != "nothing":
        (source / "new").write_text("x")
    if dirt == "staged":
        run_git(source, "add", "new")
    expected = (DIRTY,) if dirt in ("staged", "untracked") else ()
    assert (await git.create(source)).warnings == expected


async def test_an_origin_of_which_it_cannot_be_told_says_so(git: Parts, source: Path) -> None:
    (source / ".git" / "index").write_bytes(b"nonsense")
    assert (await git.create(source)).warnings == (UNKNOWN,)
    (source / ".git" / "index").unlink()
    os.mkfifo(source / ".git" / "index")
    assert (await git.create(source, OTHER, branch="other")).warnings
