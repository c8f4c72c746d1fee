"""A live suite for programs in other languages, and a table of how they did."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.interop.languages import Program
from tests.support.repository import git, make_repository
from tests.support.suite import Suite, running_suite

_HEAD: Final = ("program", "with", "steps", "answers lost", "breaks", "built in", "ran in")


@dataclass(slots=True)
class Row:
    """How one program did."""

    program: str
    versions: str
    steps: int = 0
    lost: int = 0
    breaks: int = 0
    built: float = 0
    ran: float = 0
    missing: str = ""
    failed: bool = True

    def cells(self) -> tuple[str, ...]:
        if self.missing:
            return (self.program, f"not run: {self.missing}")
        ending = "failed" if self.failed else str(self.steps)
        seconds = (f"{self.built:.1f} s", f"{self.ran:.1f} s")
        return (self.program, self.versions, ending, str(self.lost), str(self.breaks), *seconds)


_ROWS: Final = pytest.StashKey[list[Row]]()


@dataclass(slots=True)
class Table:
    rows: list[Row] = field(default_factory=list)

    def row(self, program: Program) -> Row:
        versions = ", ".join(tool.shown() for tool in program.tools if not tool.missing)
        self.rows.append(Row(program.name, versions, missing="; ".join(program.missing())))
        return self.rows[-1]


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Table:
    made = Table()
    pytestconfig.stash[_ROWS] = made.rows
    return made


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = [_HEAD, *(row.cells() for row in config.stash.get(_ROWS, []))]
    if len(rows) == 1:
        return
    terminalreporter.section("clients in other languages")
    widths = [max(len(row[n]) for row in rows if len(row) == len(_HEAD)) for n in range(len(_HEAD))]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        terminalreporter.write_line("  ".join(cells).rstrip())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    async with running_suite(tmp_path_factory.mktemp("interop")) as running:
        yield running


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository with one commit on `main`."""
    folder = tmp_path_factory.mktemp("origin")
    make_repository(folder / "work")
    git(folder, "clone", "--quiet", "--bare", "work", "app.git")
    return folder / "app.git"
