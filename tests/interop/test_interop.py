"""One scenario, run by a program in each language: a live suite, and a network that breaks."""

import shutil
import time
from pathlib import Path
from typing import Final

import pytest

from tests.interop.conftest import Table
from tests.interop.languages import PROGRAMS, Program, chosen
from tests.interop.proxies import Cutting
from tests.interop.running import Run, build, run_to_end
from tests.support.repository import git
from tests.support.suite import Suite

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(1500),
]


@pytest.mark.parametrize("program", chosen(), ids=lambda program: program.name)
async def test_a_client_does_each_thing_once_and_loses_no_byte(
    suite: Suite, repository: Path, tmp_path: Path, table: Table, program: Program
) -> None:
    row = table.row(program)
    if row.missing:
        pytest.skip(f"{program.name}: missing {row.missing}")
    row.built = await build(program)
    start = time.monotonic()
    run = Run(program, suite, repository, tmp_path)
    await run.perform(program.built(program.conformance))
    row.ran = time.monotonic() - start
    await run.check()
    row.steps, row.lost = len(run.scenario.lines), len(run.lost)
    row.breaks = run.scenario.told("output")["breaks"]
    row.failed = False


_MISTAKES: Final = {
    "a retry without a request id": (
        "conformance.py",
        """seq -w 1048576")),
        request_id=str(uuid.uuid4()),""",
        """seq -w 1048576")),""",
    ),
    "output with a byte twice after a break": (
        "calling.py", "from_offset=offset", "from_offset=max(0, offset - 1)",
    ),
    "output without a byte after a break": (
        "calling.py", "from_offset=offset", "from_offset=offset and offset + 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", _MISTAKES)
async def test_a_client_with_a_mistake_is_found_out(
    suite: Suite, repository: Path, tmp_path: Path, mistake: str
) -> None:
    (python,) = [program for program in PROGRAMS if program.name == "python"]
    await build(python)
    file, right, wrong = _MISTAKES[mistake]
    shutil.copytree(python.build.parent, tmp_path / "python")
    text = (tmp_path / "python" / file).read_text()
    assert text.count(right) == 1
    (tmp_path / "python" / file).write_text(text.replace(right, wrong))
    started = python.built("conformance").read_text()
    altered = tmp_path / "conformance"
    altered.write_text(started.replace(str(python.build.parent), str(tmp_path / "python")))
    altered.chmod(0o755)

    run = Run(python, suite, repository, tmp_path)
    await run.perform(altered)
    with pytest.raises(AssertionError):
        await run.check()


@pytest.mark.parametrize(
    "program", [each for each in chosen() if each.example], ids=lambda program: program.name
)
async def test_an_example_does_what_it_says(
    suite: Suite, repository: Path, program: Program
) -> None:
    if missing := program.missing():
        pytest.skip(f"{program.name}: missing {'; '.join(missing)}")
    await build(program)
    before = await workspaces(suite)
    origin = f"file://{repository}"
    script = "echo made > made.txt; seq -w 300000"
    async with Cutting(suite.grpc).serving() as cutting:
        gateway = {"COVE_ADDRESS": cutting.address, "COVE_TOKEN": suite.token}
        done = await run_to_end(program.built(program.example), gateway, origin, script)
    assert done.status == 0, done.errors
    assert cutting.cuts >= 2
    assert done.stdout == b"".join(b"%06d\n" % number for number in range(1, 300001))
    (commit,) = [line for line in done.errors.splitlines() if line.startswith("commit ")]
    branches = git(
        repository, "branch", "--list", f"cove/{program.name}-*", "--contains", commit[7:]
    )
    made = branches.split()[-1]
    assert git(repository, "show", "--format=%s", "--name-only", made).split("\n\n") == [
        script,
        "made.txt\n",
    ]

    gateway["COVE_ADDRESS"] = suite.grpc
    done = await run_to_end(program.built(program.example), gateway, origin, "exit 5")
    assert (done.status, done.stdout) == (5, b"")
    assert "nothing to commit" in done.errors.splitlines()
    assert await workspaces(suite) == before


async def workspaces(suite: Suite) -> list[str]:
    async with suite.client() as cove:
        return [each.id async for each in cove.workspaces.list(show_deleted=True)]
