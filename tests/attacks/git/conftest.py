"""One suite, one arena and one origin for all attacks on git."""

import http.server
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from cove.client import Client
from cove.git.v1 import git_pb2 as pb
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.workspace import Workspace
from tests.attacks.git.arena import Arena, arena
from tests.attacks.git.naive import Naive
from tests.attacks.git.parts import Attacked
from tests.support.repository import git, make_repository
from tests.support.suite import Suite, running_suite

OTHER_TENANT = "other"


@pytest.fixture(scope="session")
def traps() -> Iterator[Arena]:
    with arena() as made:
        yield made


@pytest.fixture(scope="session")
def door() -> Iterator[str]:
    """An http URL that asks for a password."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/x.git"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two branches that conflict, and a submodule."""
    path = tmp_path_factory.mktemp("origin") / "app"
    files = {"README.md": "hello\n", "src/main.py": "print(1)\n", "src/other.py": "print(2)\n"}
    commit = make_repository(path, files)
    git(path, "update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    git(path, "commit", "-qm", "Add a submodule")
    git(path, "checkout", "-qb", "topic")
    (path / "README.md").write_text("theirs\n")
    git(path, "commit", "-qam", "Topic")
    git(path, "checkout", "-q", "main")
    return path


@pytest.fixture(scope="session")
def naive(traps: Arena, origin: Path, door: str) -> Naive:
    bare = traps.root / "origin.git"
    git(origin, "clone", "-q", "--bare", "--no-local", str(origin), str(bare))
    other = traps.root / "other"
    commit = make_repository(other, {"stolen": f"{traps.others}\n"})
    traps.give(bare)
    traps.give(other)
    variables = traps.environment(other / ".git" / "objects", commit, door)
    return Naive(traps, bare, variables)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    async with running_suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cove(suite: Suite) -> AsyncIterator[Client]:
    async with suite.client() as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(suite: Suite) -> AsyncIterator[GitServiceStub]:
    async with grpc.aio.insecure_channel(suite.address("git")) as channel:
        yield GitServiceStub(channel)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def attacked(
    suite: Suite,
    cove: Client,
    service: GitServiceStub,
    traps: Arena,
    origin: Path,
    door: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Attacked:
    """The suite, with a repository of another tenant in it, and one that may be pushed to."""
    base = tmp_path_factory.mktemp("others")
    commit = make_repository(base / "other", {"stolen": f"{traps.others}\n"})
    request = pb.CreateWorktreeRequest(
        uid="otherotherothero", repository=f"file://{base}/other", branch="theirs"
    )
    await service.CreateWorktree(request, metadata=(("cove-tenant", OTHER_TENANT),))
    [store] = (suite.state / "git" / "repositories").glob(f"{OTHER_TENANT}/*/objects")
    bare = base / "bare.git"
    git(origin, "init", "-q", "--bare", str(bare))
    made = Attacked(
        suite=suite,
        cove=cove,
        service=service,
        arena=traps,
        origin=origin,
        bare=bare,
        variables=traps.environment(store, commit, door),
    )
    return made.reknown()


@pytest_asyncio.fixture(loop_scope="session")
async def workspace(attacked: Attacked) -> AsyncIterator[Workspace]:
    async with attacked.workspace() as made:
        yield made


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Path]:
    """A place for a repository that is made to harm who clones it."""
    path = tmp_path / f"evil-{secrets.token_hex(2)}"
    yield path
    shutil.rmtree(path, ignore_errors=True)
