"""Talking to remotes by ssh, to a real server."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from services.git.credentials import Credentials
from services.git.draft import Draft
from services.git.errors import AccessDenied, RemoteForbidden, RepositoryNotFound
from services.git.origins import Caller
from services.git.push import Target
from services.git.remote import Rules
from tests.git.parts import CALLER, Parts, parts, run_git, write
from tests.git.sshd import Sshd, serving


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("ssh") / "d") as server:
        yield server


@dataclass(frozen=True)
class Host:
    git: Parts
    sshd: Sshd
    repository: Path

    @property
    def url(self) -> str:
        return f"ssh://{self.sshd.user}@localhost:{self.sshd.port}{self.repository}"

    def caller(self, *, key: str = "", host_key: str | None = None) -> Caller:
        """One who has the right key and knows the host, unless told otherwise."""
        known = self.sshd.host_key if host_key is None else host_key
        credentials = Credentials(
            private_key=key or self.sshd.key,
            known_hosts=f"[localhost]:{self.sshd.port} {known}\n" if known else "",
        )
        return replace(CALLER, credentials=credentials)


@pytest.fixture
async def host(tmp_path: Path, source: Path, sshd: Sshd) -> AsyncIterator[Host]:
    repository = tmp_path / "app.git"
    run_git(tmp_path, "clone", "-q", "--bare", str(source), str(repository))
    rules = Rules(allowed_hosts=frozenset([f"localhost:{sshd.port}"]))
    async with parts(tmp_path / "state", rules) as git:
        yield Host(git, sshd, repository)


async def test_clone_and_push_by_ssh(host: Host, source: Path) -> None:
    created = await host.git.create(host.url, caller=host.caller())
    assert created.base_commit == run_git(source, "rev-parse", "HEAD")
    record, workspace = await host.git.ready()
    write(workspace, "new", "new\n")
    done = await host.git.committer.commit(record, workspace, Draft(message="Change"))
    await host.git.pusher.push(record, workspace, Target(), host.caller())
    assert run_git(host.repository, "rev-parse", "work") == done.commit
    key = host.sshd.key.encode()
    files = [path for path in host.git.state.rglob("*") if path.is_file()]
    assert not [path for path in files if key in path.read_bytes()]


@pytest.mark.parametrize("known", ["", "another"], ids=["unknown host", "wrong host key"])
async def test_a_host_that_does_not_prove_itself_is_refused_with_a_remedy(
    host: Host, known: str
) -> None:
    other = host.sshd.host_key[:-8] + "AAAAAAAA" if known else ""
    with pytest.raises(RemoteForbidden) as caught:
        await host.git.create(host.url, caller=host.caller(host_key=other))
    assert caught.value.metadata["rule"] == "host_key"
    assert "known_hosts" in caught.value.remedy


async def test_a_key_that_is_not_let_in_is_access_denied(host: Host) -> None:
    with pytest.raises(AccessDenied):
        await host.git.create(host.url, caller=host.caller(key=host.sshd.other_key))


async def test_a_repository_that_is_not_there_is_not_found(host: Host) -> None:
    with pytest.raises(RepositoryNotFound):
        await host.git.create(f"{host.url}-none", caller=host.caller())


async def test_a_host_on_loopback_has_to_be_listed(host: Host, tmp_path: Path) -> None:
    async with parts(tmp_path / "other", Rules()) as git:
        with pytest.raises(RemoteForbidden) as caught:
            await git.create(host.url, caller=host.caller())
    assert caught.value.metadata["rule"] == "address"
