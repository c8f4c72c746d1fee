"""Git, on every driver: outside and inside see the same files and the same history."""

from pathlib import Path

from tests.drivers.standing import Stage
from tests.suite.conftest import head_of


async def test_a_change_goes_from_a_command_to_the_origin(stage: Stage, repository: Path) -> None:
    async with await stage.create(repository) as workspace:
        assert (await workspace.execute("cat", "README")).text == "hello\n"
        await workspace.execute(
            script="echo more >> README; echo new > new; rm -f gone", check=True
        )
        status = await workspace.status()
        assert {each.path for each in status.entries} == {"README", "new"}
        made = await workspace.source.commit("Change")
        assert not (await workspace.status()).entries
        await workspace.source.push()
        assert head_of(repository, workspace.branch) == made.commit.id


async def test_a_second_commit_has_what_was_changed_between(stage: Stage, repository: Path) -> None:
    async with await stage.create(repository) as workspace:
        await workspace.execute(script="echo 1 > one", check=True)
        await workspace.source.commit("One")
        await workspace.execute(script="rm README; echo 2 > two", check=True)
        status = {each.path for each in (await workspace.status()).entries}
        assert status == {"README", "two"}
        await workspace.source.commit("Two")
        log = [each.message.strip() async for each in workspace.source.log()]
        assert log[:2] == ["Two", "One"]


async def test_a_fork_has_everything_and_goes_its_own_way(stage: Stage, repository: Path) -> None:
    async with await stage.create(repository) as workspace:
        await workspace.execute(script="echo of-both > untracked", check=True)
        async with await workspace.fork() as fork:
            assert (await fork.execute("cat", "untracked", "README")).text == "of-both\nhello\n"
            await fork.execute(script="echo fork > only", check=True)
            await workspace.execute(script="echo source > untracked", check=True)
            assert (await fork.execute("cat", "untracked")).text == "of-both\n"
            assert "only" not in {each.path for each in await workspace.list()}
            assert fork.message.driver == stage.standing.name


async def test_a_fork_has_the_rest_too_where_the_driver_says_so(
    stage: Stage, repository: Path
) -> None:
    async with await stage.create(repository) as workspace:
        await workspace.execute(script="echo of-both > ~/note", check=True)
        async with await workspace.fork() as fork:
            expected = "of-both\n" if "fork_state" in stage.can else ""
            assert (await fork.execute(script="cat ~/note README | head -n 1")).text.replace(
                "hello\n", ""
            ) == expected
            await fork.execute(script="echo fork > ~/note", check=True)
            assert (await workspace.execute(script="cat ~/note")).text == "of-both\n"


async def test_git_is_inside_where_the_driver_says_so(stage: Stage, repository: Path) -> None:
    async with await stage.create(repository) as workspace:
        look = "cat .git/HEAD && ls -d $(cat .git/objects/info/alternates)"
        seen = await workspace.execute(script=look)
        if "git" in stage.can:
            assert seen.check().text.startswith("ref: refs/heads/")
        else:
            assert seen.exit_status != 0
            assert (await workspace.execute("ls", "-A")).check().text == "README\n"


async def test_a_snapshot_keeps_how_it_was(stage: Stage, repository: Path) -> None:
    async with await stage.create(repository) as workspace:
        await workspace.execute(script="echo then > state", check=True)
        snapshot = await workspace.snapshots.create()
        await workspace.execute(script="echo now > state", check=True)
        async with await workspace.fork(snapshot=snapshot.name.rpartition("/")[2]) as fork:
            assert (await fork.execute("cat", "state")).text == "then\n"


async def test_a_merge_from_outside_is_seen_inside(stage: Stage, repository: Path) -> None:
    async with await stage.create(repository) as workspace:
        await workspace.execute(script="echo inside > file", check=True)
        await workspace.source.commit("Inside")
        await workspace.source.merge("main")
        async with await stage.create(repository, revision="main") as other:
            assert (await other.execute("cat", "file")).text == "inside\n"
