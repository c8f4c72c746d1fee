"""Worktrees: made, found again, removed."""

from pathlib import Path

from services.git import status
from services.git.commit import Draft
from services.git.record import State
from tests.git.parts import UID, Parts, run_git, write


async def test_a_worktree_is_a_checkout_of_the_remote_head(git: Parts, source: Path) -> None:
    record = await git.create(source)
    assert record.state is State.READY
    assert record.base_commit == run_git(source, "rev-parse", "HEAD")
    _, workspace = await git.ready()
    assert (workspace.tree / "README").read_text() == "hello\n"
    assert await status.read(workspace, workspace.head) == []


async def test_a_commit_holds_what_status_shows(git: Parts, source: Path) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    write(workspace, "new.txt", "new\n")
    write(workspace, "README", "changed\n")
    entries = await status.read(workspace, workspace.head)
    assert [(entry.path, entry.work.name) for entry in entries] == [
        (b"README", "MODIFIED"),
        (b"new.txt", "UNTRACKED"),
    ]
    done = await git.committer.commit(record, workspace, Draft(message="Change"))
    assert workspace.head == done.commit
    assert await status.read(workspace, workspace.head) == []
    assert UID in str(workspace.directory)
