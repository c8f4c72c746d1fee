"""Pushing a branch: what is taken, and what is refused."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.git.credentials import Credentials
from services.git.draft import Draft
from services.git.errors import (
    BranchCheckedOut,
    HeadMoved,
    NonFastForward,
    NoRemote,
    PushRejected,
    RemoteForbidden,
)
from services.git.push import Pushed, Target
from tests.git.http_remote import PASSWORD
from tests.git.parts import CALLER, UID, Parts, add_commit, run_git, write

ADA = replace(CALLER, credentials=Credentials(username="ada", password=PASSWORD))


async def change(git: Parts, name: str = "new", uid: str = UID) -> str:
    record, workspace = await git.ready(uid)
    write(workspace, name, "new\n")
    return (await git.committer.commit(record, workspace, Draft(message="Change"))).commit


async def push(git: Parts, uid: str = UID, **target: Any) -> Pushed:
    record, workspace = await git.ready(uid)
    return await git.pusher.push(record, workspace, Target(**target), CALLER)


async def test_push_to_a_repository_of_this_machine(git: Parts, source: Path) -> None:
    await git.create(source, branch="cove/demo")
    hook = source / ".git" / "hooks" / "post-receive"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {source}/hook-ran\n")
    hook.chmod(0o755)
    first = await change(git)
    assert (await push(git)).previous == ""
    second = await change(git, "more")
    assert await push(git) == Pushed(
        url=f"file://{source}", branch="cove/demo", commit=second, previous=first
    )
    assert run_git(source, "rev-parse", "cove/demo") == second
    owners = {path.stat().st_uid for path in (source / ".git").rglob("*")}
    assert owners == {source.stat().st_uid}
    assert not (source / "hook-ran").exists()
    assert (await push(git)).previous == second


async def test_a_push_does_not_wait_for_a_fetch_for_another_worktree(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    commit = await change(git)
    _, workspace = await git.ready()
    async with workspace.repository.lock, asyncio.timeout(60):
        assert (await push(git)).commit == commit
    refs = await workspace.repository.refs("refs/remotes/origin/work")
    assert refs == {"refs/remotes/origin/work": commit}


async def test_push_to_a_checked_out_branch_is_refused(git: Parts, source: Path) -> None:
    await git.create(source)
    await change(git)
    run_git(source, "config", "receive.denyCurrentBranch", "updateInstead")
    with pytest.raises(BranchCheckedOut):
        await push(git, branch="main")


async def test_push_over_other_commits_needs_exactly_their_head(git: Parts, source: Path) -> None:
    await git.create(source)
    ours = await change(git)
    run_git(source, "checkout", "-q", "-b", "work")
    theirs = add_commit(source, {"theirs": "x"})
    run_git(source, "checkout", "-q", "main")
    with pytest.raises(NonFastForward) as caught:
        await push(git)
    assert "--expect" in caught.value.remedy
    with pytest.raises(HeadMoved):
        await push(git, expected_head=run_git(source, "rev-parse", "main"))
    assert run_git(source, "rev-parse", "work") == theirs
    assert (await push(git, expected_head=theirs)).previous == theirs
    assert run_git(source, "rev-parse", "work") == ours


async def test_push_that_the_target_forbids_is_rejected(git: Parts, source: Path) -> None:
    await git.create(source)
    await change(git)
    run_git(source, "config", "receive.hideRefs", "refs/heads/work")
    with pytest.raises(PushRejected):
        await push(git)


async def test_push_to_another_repository(git: Parts, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.git"
    run_git(tmp_path, "init", "-q", "--bare", str(target))
    await git.create(source)
    commit = await change(git)
    await push(git, url=str(target), branch="else/where")
    assert run_git(target, "rev-parse", "else/where") == commit


async def test_a_remote_that_is_refused_is_named_as_the_field_it_came_in(
    git: Parts, source: Path
) -> None:
    await git.create(source)
    for url in ("ext::sh -c x", "https://ada:x@example.org/a", "https://127.0.0.1/a"):
        with pytest.raises(RemoteForbidden) as caught:
            await push(git, url=url)
        assert [one.field for one in caught.value.violations] == ["remote"]
        assert caught.value.metadata["rule"]


async def test_push_without_origin_needs_a_remote(git: Parts) -> None:
    await git.create("")
    await change(git)
    with pytest.raises(NoRemote):
        await push(git)


async def test_push_to_a_linked_worktrees_repository(
    git: Parts, source: Path, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    run_git(source, "worktree", "add", "-q", "-b", "side", str(linked))
    await git.create(linked)
    commit = await change(git)
    await push(git)
    assert run_git(source, "rev-parse", "work") == commit
    with pytest.raises(BranchCheckedOut):
        await push(git, branch="side")
