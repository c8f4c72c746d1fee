"""Shows that something goes on, where a person sees it and once it takes more than a moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from cove.cli.console import Console

if TYPE_CHECKING:  # It takes a while to import.
    from rich.progress import Progress as Bar

_MOMENT: Final = 1.0
_INTERVAL: Final = 0.1


class Progress:
    """How far it is. A total of 0 is not known yet."""

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self.done = 0
        self.total = 0

    def tell(self, doing: str, done: int, total: int = 0) -> None:
        self.doing, self.done, self.total = doing, done, total


@asynccontextmanager
async def waiting(
    console: Console, doing: str, *, in_bytes: bool = False
) -> AsyncIterator[Progress | None]:
    """A bar on the standard error while the block runs; None where nobody would see it."""
    if not console.shows_progress:
        yield None
        return
    progress = Progress(doing)
    showing = asyncio.create_task(_show(progress, in_bytes=in_bytes))
    try:
        yield progress
    finally:
        showing.cancel()
        await asyncio.wait([showing])


async def _show(progress: Progress, *, in_bytes: bool) -> None:
    await asyncio.sleep(_MOMENT)
    with _bar(in_bytes=in_bytes) as bar:
        task = bar.add_task(progress.doing, total=None)
        while True:
            bar.update(
                task,
                description=progress.doing,
                completed=progress.done,
                total=progress.total or None,
            )
            await asyncio.sleep(_INTERVAL)


def _bar(*, in_bytes: bool) -> "Bar":
    """Gone when the block ends."""
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True) if in_bytes else MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=RichConsole(stderr=True),
        transient=True,
    )
