"""A progress bar. Apart, as it takes a while to import."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cove.cli.console import printable
from cove.registry.v1 import registry_pb2
from cove.workspaces import OnProgress


@contextmanager
def shown() -> Iterator[OnProgress]:
    """A bar on the standard error, gone when the block ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeElapsedColumn(), console=RichConsole(stderr=True), transient=True)
    with bar:
        task = bar.add_task("creating", total=None)

        def tell(progress: registry_pb2.Progress) -> None:
            bar.update(
                task,
                description=printable(progress.phase) or "creating",
                completed=progress.done,
                total=progress.total or None,
            )

        yield tell
