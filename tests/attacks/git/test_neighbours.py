"""What a program does to the repository it sees: neighbours and the store take no harm."""

import subprocess
from pathlib import Path

import pytest

from cove.workspace import Workspace
from tests.attacks.git.attack import parameters
from tests.attacks.git.parts import Attacked

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.long]

# Whether they succeed does not matter.
HARM = {
    "gc": "git gc -q --prune=now --aggressive",
    "repack": "git repack -adfq --depth=50; git prune-packed; git prune --expire=now",
    "objects": "rm -rf .git/objects/* .git/objects; rm -rf /.cove/objects/*",
    "everything": "find .git /.cove -depth -delete; rm -rf .git; truncate -s 0 .git/* .git/*/*",
    "what alternates name": 'for each in $(cat .git/objects/info/alternates); do rm -rf "$each"/*;'
    ' echo x > "$each/x"; mkdir -p "$each/info"; echo "$DROP" > "$each/info/alternates"; done',
    "all refs": 'for ref in $(git for-each-ref --format="%(refname)"); do'
    " git update-ref -d $ref; done; git pack-refs --all; rm -rf .git/refs .git/packed-refs",
    "refs of others": "git update-ref refs/heads/main HEAD; git update-ref refs/remotes/origin/main"
    ' "$(git commit-tree -m "$FORGED" HEAD^{tree})"; mkdir -p .git/refs/cove; cp -r .git/refs/heads'
    " .git/refs/cove/x",
    "a repository of its own": "rm -rf .git; git init -q .; git add -A; git commit -qm Own",
    "other permissions": "chmod -R 777 .git /.cove; chmod -R 0 .git /.cove",
}
ALWAYS = ("gc", "repack", "objects", "what alternates name")


def store(attacked: Attacked) -> Path:
    [path] = [
        each
        for each in (attacked.suite.state / "git" / "repositories" / attacked.tenant).glob("*.git")
        if _is_of(each, attacked.origin)
    ]
    return path


def _is_of(path: Path, origin: Path) -> bool:
    head = git(origin, "rev-parse", "main").strip()
    return git(path, "cat-file", "-t", head, check=False) == "commit\n"


def git(path: Path, *arguments: str, check: bool = True) -> str:
    argv = ["git", "-c", "safe.directory=*", "-C", str(path), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=check).stdout


async def facts(workspace: Workspace) -> list[object]:
    """All that a neighbour can see of its own state."""
    status = await workspace.status()
    return [
        [(entry.path, entry.work_state) for entry in status.entries],
        status.head_commit,
        [commit.id async for commit in workspace.log()],
        [event.SerializeToString() async for event in workspace.diff("base..work")],
        (await workspace.execute("git", "log", "--format=%H")).stdout,
        (await workspace.execute("git", "cat-file", "-p", "HEAD:README.md")).stdout,
    ]


@pytest.mark.parametrize("name", parameters(HARM, ALWAYS))
async def test_harm_to_ones_own_git_directory_is_ones_own(name: str, attacked: Attacked) -> None:
    async with attacked.workspace() as neighbour, attacked.workspace() as workspace:
        await neighbour.write("README.md", b"neighbour\n")
        await neighbour.commit("Neighbour")
        await neighbour.write("new", b"new\n")
        path = store(attacked)
        before = await facts(neighbour)
        refs = git(path, "for-each-ref")
        await workspace.write("mine", b"x")
        await attacked.plant(workspace, HARM[name])
        assert git(path, "for-each-ref") == refs
        hits, answers = await attacked.hits(workspace)
        assert not hits
        # The service knows head and objects, whatever is left inside.
        told = {one.rpc for one in answers if not one.failure}
        assert {"ListCommits", "ListBranches", "FetchRepository"} <= told
        assert await facts(neighbour) == before
        await neighbour.commit("Later")
    problems = git(path, "fsck", "--full", "--strict", "--no-dangling", check=False)
    assert not problems


async def test_a_workspace_cannot_name_a_neighbours_commits_by_ref(attacked: Attacked) -> None:
    async with attacked.workspace() as neighbour, attacked.workspace() as workspace:
        await neighbour.write("new", b"neighbour\n")
        await neighbour.commit("Neighbour")
        names = (await workspace.execute("git", "for-each-ref")).stdout
        assert b"neighbour" not in names
        assert neighbour.message.uid.encode() not in names
        shown = [branch.name async for branch in workspace.branches()]
        assert neighbour.branch not in shown
