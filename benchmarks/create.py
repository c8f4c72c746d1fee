"""A workspace of a repository that is here already, against `git worktree add` in it.

And until its first command has ended, against a container of an image that is here already.
"""

import asyncio
from itertools import count
from pathlib import Path

from benchmarks.engine import Engine
from benchmarks.measure import Action, Aim, interleaved, report
from benchmarks.suite import Suite, make_repository


async def run(suite: Suite, folder: Path) -> None:
    if suite.engine:
        await _first_exit(suite, suite.engine, make_repository(folder / "first", 45))
    for files in (45, 2000):
        repository = make_repository(folder / f"repo{files}", files)
        numbers = count()

        async def create(
            repository: Path = repository, numbers: "count[int]" = numbers, files: int = files
        ) -> None:
            await suite.create(repository, f"create-{files}-{next(numbers)}")

        added = count()

        async def worktree_add(
            repository: Path = repository, added: "count[int]" = added, files: int = files
        ) -> None:
            number = next(added)
            process = await asyncio.create_subprocess_exec(
                *("git", "worktree", "add", "-q", "-b", f"w{number}"),
                str(folder / f"worktree{files}-{number}"),
                cwd=repository,
            )
            assert await process.wait() == 0

        medians = await interleaved(
            {"create": create, "git worktree add": worktree_add}, rounds=10, warmup=2
        )
        report(f"create, {files} files", medians, ["git worktree add"])
        for number in range(next(numbers)):
            await suite.delete(f"create-{files}-{number}")


async def _first_exit(suite: Suite, engine: Engine, repository: Path) -> None:
    numbers, containers = count(), []

    async def create_and_execute() -> None:
        name = f"first-{next(numbers)}"
        await suite.create(repository, name)
        await suite.execute(name, "true")

    async def docker() -> None:
        container = await engine.create()
        containers.append(container)
        await engine.start(container)
        await engine.execute(container, "true")

    reference = "docker create, start, exec"
    actions: dict[str, Action] = {"create, execute": create_and_execute, reference: docker}
    aims = (Aim("create, execute", reference, 1 / 6),)
    report("first exit", await interleaved(actions, rounds=12, warmup=2), [reference], aims)
    for number in range(next(numbers)):
        await suite.delete(f"first-{number}")
    for container in containers:
        await engine.remove(container)
