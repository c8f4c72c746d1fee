"""Remotes that want a password, and one that never answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from cove.mcp.remotes import Remotes
from tests.git.authority import Authority
from tests.git.http_remote import PASSWORD, serving
from tests.mcp.agent import Refused, over_stdio
from tests.support.repository import git, make_repository
from tests.support.suite import Suite, running_suite, until

ADA = {"COVE_REMOTE_USERNAME": "ada", "COVE_REMOTE_PASSWORD": PASSWORD}


class Silent(asyncio.Protocol):
    """Takes connections, and says nothing."""

    def __init__(self, held: list[asyncio.Transport]) -> None:
        self._held = held

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._held.append(transport)


@dataclass(frozen=True, slots=True)
class Remote:
    """A suite that may reach these remotes."""

    suite: Suite
    bare: Path
    host: str
    silent: str
    held: list[asyncio.Transport]

    @property
    def url(self) -> str:
        return f"https://{self.host}/app.git"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, Path]]:
    """A repository behind a password, its port, and the authority that vouches for it."""
    folder = tmp_path_factory.mktemp("remote")
    authority = Authority(folder / "authority")
    root = folder / "served"
    root.mkdir()
    make_repository(folder / "source")
    git(root, "clone", "-q", "--bare", str(folder / "source"), "app.git")
    git(root / "app.git", "config", "http.receivepack", "true")
    with ExitStack() as stack:
        server = stack.enter_context(serving(root, authority.issue("localhost")))
        yield root / "app.git", server.port, authority.certificate


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def remote(
    tmp_path_factory: pytest.TempPathFactory, served: tuple[Path, int, Path]
) -> AsyncIterator[Remote]:
    bare, port, certificate = served
    held: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    silent = await loop.create_server(lambda: Silent(held), "127.0.0.1")
    quiet = f"localhost:{silent.sockets[0].getsockname()[1]}"
    host = f"localhost:{port}"
    env = {
        "COVE_GIT__CA_FILE": str(certificate),
        "COVE_GIT__ALLOWED_HOSTS": f"{host},{quiet}",
    }
    async with running_suite(tmp_path_factory.mktemp("suite"), env=env) as suite:
        yield Remote(suite, bare, host, quiet, held)
    silent.close()
    for transport in held:
        transport.abort()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_password_goes_to_the_hosts_that_are_named(remote: Remote) -> None:
    allowed = {**ADA, "COVE_REMOTE_HOSTS": f"git.example.org, {remote.host}"}
    async with over_stdio(remote.suite, allowed) as agent:
        await agent.text("create", repository=remote.url, id="private")
        await agent.text("write", workspace="private", path="new", content="1\n")
        commit = await agent.data("commit", workspace="private", message="New")
        pushed = await agent.data("push", workspace="private")
    assert pushed["remote"] == remote.url
    assert git(remote.bare, "rev-parse", "cove/private").strip() == commit["commit"]["id"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("hosts", [{}, {"COVE_REMOTE_HOSTS": "localhost, git.example.org:443"}])
async def test_a_password_goes_to_no_other_host(remote: Remote, hosts: dict[str, str]) -> None:
    async with over_stdio(remote.suite, {**ADA, **hosts}) as agent:
        with pytest.raises(Refused) as refused:
            await agent.text("create", repository=remote.url)
    assert refused.value.said["reason"] == "REPOSITORY_ACCESS_DENIED"
    assert "COVE_REMOTE_HOSTS" in refused.value.said["remedy"]
    assert PASSWORD not in refused.value.text


@pytest.mark.asyncio(loop_scope="module")
async def test_a_create_that_takes_long_goes_on_after_the_call(remote: Remote) -> None:
    async with over_stdio(remote.suite) as agent:
        silent = f"https://{remote.silent}/a.git"
        await agent.text("list")  # There is a connection now: the call is long enough to begin it.
        says = await agent.text("create", repository=silent, id="slow", wait_seconds=3)
        assert says.startswith("workspace slow is still being made (")
        assert "slow pending" in await agent.text("list")
        assert "slow is pending" in await agent.text("status", workspace="slow")
        await until(lambda: bool(remote.held), "the remote is asked")
        remote.held[0].abort()
        async with asyncio.timeout(30):
            while not (found := await agent("status", workspace="slow")).is_error:
                pass  # Each call waits for an answer.
        assert "WORKSPACE_NOT_FOUND" in str(found.content)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://git.example.org/a.git", True),
        ("https://GIT.example.org/a.git", True),
        ("https://git.example.org", True),
        ("https://git.example.org:8443/a.git", True),
        ("https://git.example.org:444/a.git", False),
        ("https://git.example.org.evil.example/a.git", False),
        ("https://evil.example/git.example.org", False),
        ("https://git.example.org@evil.example/a.git", False),
        ("https://evil.example\\@git.example.org/a.git", False),
        ("https://evil.example#git.example.org/", False),
        ("http://git.example.org/a.git", False),
        ("ssh://git.example.org/a.git", False),
        ("file:///srv/a.git", False),
        ("", False),
    ],
)
def test_the_host_is_the_one_that_git_would_ask(url: str, sent: bool) -> None:
    env = {**ADA, "COVE_REMOTE_HOSTS": "git.example.org, git.example.org:8443"}
    assert (Remotes.of(env).credentials(url) is not None) is sent
