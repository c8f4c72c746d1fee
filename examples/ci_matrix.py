"""A CI bot: runs a command on one revision, once for each cell of a matrix of variables.

    cove up &
    python examples/ci_matrix.py . 'python3 -m unittest' PYTHONOPTIMIZE=0,1,2 LANG=C,C.UTF-8

Every cell has a workspace of its own, all at the same commit; their output comes prefixed, as it is
written. A report is committed and pushed to a branch. Exit status 1 when a cell failed.
"""

import argparse
import asyncio
import itertools
import secrets
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from cove import Chunk, Client, Exit, exit_status

PARALLEL = 4


@dataclass
class Cell:
    env: dict[str, str]
    status: int = -1
    seconds: float = 0

    @property
    def name(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.env.items())


async def run(cove: Client, cell: Cell, id: str, options: argparse.Namespace, commit: str) -> None:
    """Run the command in a workspace of its own, and show its output line by line."""
    source = options.repository
    async with AsyncExitStack() as left:
        workspace = await cove.workspaces.create(source, revision=commit, id=id, env=cell.env)
        left.push_async_callback(workspace.delete, force=True)
        rest = b""
        stream = workspace.stream(
            script=options.command, timeout=options.timeout, merge_stderr=True
        )
        async for event in stream:
            if isinstance(event, Chunk):
                *lines, rest = (rest + event.data).split(b"\n")
                for line in lines:
                    print(f"[{cell.name}] {line.decode(errors='replace')}", flush=True)
            if isinstance(event, Exit):
                cell.status = exit_status(event)
                spent = event.end_time.ToDatetime() - event.start_time.ToDatetime()
                cell.seconds = spent.total_seconds()
        if rest:
            print(f"[{cell.name}] {rest.decode(errors='replace')}", flush=True)


def report(cells: list[Cell], commit: str, command: str) -> str:
    rows = [f"# {command}\n\nCommit {commit}\n\n| variables | result | seconds |\n|---|---|---|"]
    for cell in cells:
        result = "pass" if cell.status == 0 else f"fail ({cell.status})"
        rows.append(f"| {cell.name or '-'} | {result} | {cell.seconds:.1f} |")
    return "\n".join(rows) + "\n"


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("repository", help="URL, or path")
    parser.add_argument("command", help="for `sh -c`")
    parser.add_argument("axis", nargs="*", help="VARIABLE=value,value,...")
    parser.add_argument("--revision", default="")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for each cell")
    options = parser.parse_args()
    if Path(options.repository).exists():
        options.repository = Path(options.repository)
    axes = [(key, values.split(",")) for key, _, values in (a.partition("=") for a in options.axis)]
    cells = [
        Cell(dict(zip([key for key, _ in axes], values, strict=True)))
        for values in itertools.product(*(values for _, values in axes))
    ]
    id, limit = f"ci-{secrets.token_hex(3)}", asyncio.Semaphore(PARALLEL)
    async with (
        Client() as cove,
        await cove.workspaces.create(options.repository, revision=options.revision, id=id) as home,
    ):
        commit = home.message.base_commit

        async def bounded(number: int, cell: Cell) -> None:
            async with limit:
                await run(cove, cell, f"{id}-{number}", options, commit)

        async with asyncio.TaskGroup() as group:
            for number, cell in enumerate(cells):
                group.create_task(bounded(number, cell))
        text = report(cells, commit, options.command)
        await home.write("ci/report.md", text, make_parents=True)
        failed = sum(cell.status != 0 for cell in cells)
        await home.commit(
            f"CI: {len(cells) - failed} of {len(cells)} passed", author=("CI", "ci@example.org")
        )
        branch = (await home.push()).remote_branch
    print(f"\n{text}\npushed {branch}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
