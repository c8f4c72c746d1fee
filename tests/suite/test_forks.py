"""Forks through the whole suite: what they carry, what they leave alone, and many at once."""

import asyncio
from pathlib import Path

import pytest

from cove.workspace import Workspace
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

WORK = (
    "git config user.name Ada; git config user.email ada@example.org; "
    "echo '*.log' > .gitignore; git add .gitignore; git commit -qm Inside; git tag here; "
    "echo draft >> README; echo noise > run.log; echo staged > staged; git add staged; "
    "mkdir -p deep/er; ln -s ../README deep/link; chmod 755 README"
)
SEEN = (
    "git log --format=%H%s; git tag; git status --porcelain --ignored; cat README run.log staged; "
    "readlink deep/link; stat -c %a README; ls -A ~ /tmp | wc -l"
)
COUNT = (
    "n=0; put() { echo $n > .new && mv .new $1; }; "
    "while true; do n=$((n+1)); put one; put two; done"
)


async def seen(workspace: Workspace) -> str:
    return (await workspace.execute(script=SEEN, check=True)).text


async def test_a_fork_carries_everything_and_shares_nothing(suite: Suite, repository: Path) -> None:
    async with suite.client() as cove:
        parent = await cove.workspaces.create(repository, id="parent")
        await parent.execute(script=WORK, check=True)
        before = await seen(parent)
        assert "Inside" in before
        assert "draft\nnoise\nstaged\n../README\n" in before
        child = await parent.fork("child")
        assert await seen(child) == before
        assert (child.branch, child.message.source) == ("cove/child", parent.name)
        status, other = await parent.status(), await child.status()
        assert [each.path for each in status.entries] == [each.path for each in other.entries]
        await child.execute(script="rm -r deep; echo child > README; git commit -qam Child")
        await child.write("new", "child\n")
        assert await seen(parent) == before
        done = await child.commit("From outside")
        assert done.commit.id not in [each.id async for each in parent.log()]
        await parent.execute(script="echo parent > README")
        assert await child.read_text("README") == "child\n"
        await parent.delete(force=True)
        assert await child.read_text("run.log") == "noise\n"
        grandchild = await child.fork("grandchild")
        assert await grandchild.read_text("new") == "child\n"
        for each in (child, grandchild):
            await each.delete(force=True)


async def test_twenty_forks_at_once_of_one_that_works(suite: Suite, repository: Path) -> None:
    async with suite.client() as cove:
        parent = await cove.workspaces.create(repository)
        await parent.start(script=COUNT, id="count")
        await _wait_for(parent, "two")
        forks = await asyncio.gather(*(parent.fork() for _ in range(20)))
        assert len({each.uid for each in (fork.message for fork in forks)}) == 20
        for fork in forks[::4]:
            one, two = int(await fork.read_text("one")), int(await fork.read_text("two"))
            assert one - two in (0, 1)
        before = await parent.read_text("one")
        while await parent.read_text("one") == before:
            pass
        for each in (parent, *forks):
            await each.delete(force=True)


async def test_snapshots_outlive_what_comes_after_them(suite: Suite, repository: Path) -> None:
    async with suite.client() as cove:
        parent = await cove.workspaces.create(repository)
        for number in range(5):
            await parent.write("n", f"{number}\n")
            await parent.snapshots.create(f"s{number}")
        await parent.commit("After", frozen=True)
        await suite.kill("git")
        assert len(await parent.snapshots.list()) == 5
        for number in range(5):
            fork = await parent.fork(snapshot=f"s{number}")
            assert await fork.read_text("n") == f"{number}\n"
            await parent.snapshots.delete(f"s{number}")
            assert await fork.read_text("n") == f"{number}\n"
            await fork.delete(force=True)
        await parent.delete(force=True)


async def _wait_for(workspace: Workspace, path: str) -> None:
    async with asyncio.timeout(30):
        while path not in [file.path for file in await workspace.list()]:
            pass
