"""A workspace of a repository that is here already, against `git worktree add` in it."""

import asyncio
from itertools import count
from pathlib import Path

from benchmarks.measure import interleaved, report
from benchmarks.suite import Suite, make_repository


async def run(suite: Suite, folder: Path) -> None:
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
