"""An example where calls fail: behind a network that speaks TLS, and fails as it is told."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import grpc
import pytest
import pytest_asyncio

from cove.gateway.v1.gateway_pb2 import Workspace
from gateway.errors import WorkspaceExists
from servicekit.errors import PermissionDenied
from servicekit.rates import Overloaded, RateLimited
from tests.interop.languages import Program, chosen
from tests.interop.running import build, run_to_end
from tests.interop.test_interop import workspaces
from tests.support.certificates import Authority
from tests.support.failing import Proxy, proxied
from tests.support.suite import Done, Suite

pytestmark = [
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(1500),
]

_LATER: Final = timedelta(seconds=2)
_EXAMPLES: Final = [each for each in chosen() if each.example]


class Stage:
    """An example, and the network that it speaks through."""

    def __init__(self, program: Path, network: Proxy, variables: dict[str, str]) -> None:
        self.network = network
        self._program, self._variables = program, variables

    async def run(self, *arguments: str) -> Done:
        self.network.calls.clear()
        try:
            return await run_to_end(self._program, self._variables, *arguments)
        finally:
            self.network.heal()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=_EXAMPLES, ids=lambda p: p.name)
async def stage(
    request: pytest.FixtureRequest, suite: Suite, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    program: Program = request.param
    if missing := program.missing():
        pytest.skip(f"{program.name}: missing {'; '.join(missing)}")
    await build(program)
    authority = Authority(tmp_path_factory.mktemp("pki"))
    own = authority.certify(hosts=("127.0.0.1",))
    pair = (own.key.read_bytes(), own.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair])
    async with proxied(suite.grpc, "127.0.0.1:0", credentials) as network:
        variables = {
            "COVE_ADDRESS": f"https://127.0.0.1:{network.port}",
            "COVE_CA_FILE": str(authority.path),
            "COVE_TOKEN": suite.token,
        }
        yield Stage(program.built(program.example), network, variables)


async def test_it_repeats_what_nobody_answered_and_waits_as_it_is_told(
    suite: Suite, repository: Path, stage: Stage
) -> None:
    before = await workspaces(suite)
    # Behind a proxy, a gateway that is gone is any code, without a reason.
    stage.network.fail("CreateWorkspace", code=grpc.StatusCode.INTERNAL, done=True, times=1)
    stage.network.fail("StartExecution", RateLimited("slowly", retry_after=_LATER), times=1)
    stage.network.fail("ReadOutput", code=grpc.StatusCode.UNKNOWN, times=1)
    stage.network.fail("CreateCommit", Overloaded("later", retry_after=_LATER), times=1)
    stage.network.fail("PushBranch", code=grpc.StatusCode.CANCELLED, done=True, times=1)
    start = time.monotonic()
    done = await stage.run(f"file://{repository}", "echo made > made.txt; echo seen")
    assert done.status == 0, done.errors
    assert done.stdout == b"seen\n"
    assert time.monotonic() - start > 2 * _LATER.total_seconds()
    twice = ["CreateWorkspace", "StartExecution", "ReadOutput", "CreateCommit", "PushBranch"]
    assert stage.network.calls == [*(rpc for rpc in twice for _ in "12"), "DeleteWorkspace"]
    assert await workspaces(suite) == before


async def test_it_deletes_only_what_it_has_made(stage: Stage, repository: Path) -> None:
    stage.network.fail("CreateWorkspace", WorkspaceExists("workspaces/other"), times=1)
    done = await stage.run(f"file://{repository}", "true")
    assert done.status not in (0, 2)
    assert "the workspace id is taken" in done.errors
    assert stage.network.calls == ["CreateWorkspace"]


async def test_what_it_could_not_push_is_kept(suite: Suite, repository: Path, stage: Stage) -> None:
    before = await workspaces(suite)
    stage.network.fail("PushBranch", PermissionDenied("no push"), times=1)
    done = await stage.run(f"file://{repository}", "echo made > made.txt")
    assert done.status not in (0, 2)
    assert "no push" in done.errors
    (left,) = set(await workspaces(suite)) - {*before}
    async with suite.client() as cove:
        assert (await cove.workspaces.get(left)).message.state == Workspace.STATE_DELETED
        workspace = await cove.workspaces.undelete(left)
        assert await workspace.files.read("made.txt") == b"made\n"
        await workspace.delete(force=True)


async def test_a_failure_is_not_hidden_by_one_of_the_delete(
    suite: Suite, repository: Path, stage: Stage
) -> None:
    before = await workspaces(suite)
    stage.network.fail("CreateCommit", PermissionDenied("no commit"), times=1)
    stage.network.fail("DeleteWorkspace", PermissionDenied("no delete"), times=1)
    done = await stage.run(f"file://{repository}", "echo made > made.txt")
    assert done.status not in (0, 2)
    assert "no commit" in done.errors
    assert "no delete" in done.errors
    (left,) = set(await workspaces(suite)) - {*before}
    async with suite.client() as cove:
        await (await cove.workspaces.get(left)).delete(force=True)


async def test_it_says_what_it_is_to_be_given(stage: Stage) -> None:
    done = await stage.run()
    assert done.status == 2
    assert "usage: example REPOSITORY SCRIPT" in done.errors
    assert stage.network.calls == []
