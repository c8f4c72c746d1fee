"""kill -9 of each service, between commands and during one: nothing a caller was told is lost."""

import asyncio
from pathlib import Path

import pytest

from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk, Gap
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

SERVICES = ["registry", "git", "provider", "executor", "gateway"]

# Writes, says that it is under way, and goes on only when a file says so: no clock.
WORK = """\
i=0
while [ $i -lt 2000 ]; do echo "line $i"; i=$((i + 1)); done
echo begun > begun-{service}
while [ ! -e go-{service} ]; do sleep 0.05; done
while [ $i -lt 4000 ]; do echo "line $i"; i=$((i + 1)); done
exit 7
"""


async def written_by(execution: Execution) -> bytes:
    """All of its output; a gap in it fails the test."""
    events = [event async for event in execution.output()]
    assert not [event for event in events if isinstance(event, Gap)]
    return b"".join(event.data for event in events if isinstance(event, Chunk))


EXPECTED = b"".join(f"line {i}\n".encode() for i in range(4000))


@pytest.mark.long  # All at once die in `make test`.
@pytest.mark.parametrize("service", SERVICES)
async def test_a_running_command_and_its_workspace_survive(
    suite: Suite, repository: Path, service: str
) -> None:
    async with suite.client() as cove:
        workspace = await cove.workspaces.create(
            repository=f"file://{repository}", id=f"kill-{service}"
        )
        before = await workspace.execute("sh", "-c", "echo kept > kept.txt")
        assert before.exit_status == 0
        execution = await workspace.start("sh", "-c", WORK.format(service=service))
        follower = asyncio.create_task(execution.wait())
        async with asyncio.timeout(30):
            while (await workspace.execute("test", "-e", f"begun-{service}")).exit_status:
                pass

        await suite.kill(service)

        await workspace.write(f"go-{service}", b"")
        ended = await asyncio.wait_for(follower, 60)
        assert ended.exit.code == 7
        got = await written_by(execution)
        assert got == EXPECTED
        after = await workspace.execute("cat", "kept.txt")
        assert after.stdout == b"kept\n"
        status = await workspace.status()
        assert {entry.path for entry in status.entries} == {
            "kept.txt",
            f"begun-{service}",
            f"go-{service}",
        }
        await workspace.delete(force=True)


async def test_all_five_at_once(suite: Suite, repository: Path) -> None:
    async with suite.client() as cove:
        workspace = await cove.workspaces.create(repository=f"file://{repository}", id="kill-all")
        execution = await workspace.start("sh", "-c", WORK.format(service="all"))
        async with asyncio.timeout(30):
            while (await workspace.execute("test", "-e", "begun-all")).exit_status:
                pass
        await asyncio.gather(*(suite.kill(service) for service in SERVICES))
        await workspace.write("go-all", b"")
        ended = await execution.wait()
        assert ended.exit.code == 7
        assert await written_by(execution) == EXPECTED
        await workspace.delete(force=True)
