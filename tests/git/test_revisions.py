"""What a revision means in a worktree."""

from pathlib import Path

import pytest

from services.git import revisions
from services.git.errors import RevisionNotFound
from tests.git.parts import Parts, add_commit, run_git


@pytest.mark.parametrize("packed", [False, True])
async def test_a_branch_of_the_origin_and_a_tag_are_found(
    git: Parts, source: Path, packed: bool
) -> None:
    first = run_git(source, "rev-parse", "HEAD")
    run_git(source, "tag", "v1")
    second = add_commit(source, {"new": "1"})
    await git.create(source)
    record, workspace = await git.ready()
    if packed:
        run_git(workspace.repository.path, "pack-refs", "--all")
    for name in ("main", "origin/main", "refs/remotes/origin/main"):
        assert await revisions.find(record, workspace, name) == second
    assert await revisions.find(record, workspace, "v1") == first


@pytest.mark.parametrize("name", ["none", "mai", "../origin/main", "a\0b", "origin/", "v"])
async def test_a_name_that_is_not_there_is_told(git: Parts, source: Path, name: str) -> None:
    run_git(source, "tag", "v1")
    await git.create(source)
    with pytest.raises(RevisionNotFound):
        await revisions.find(*await git.ready(), name)
