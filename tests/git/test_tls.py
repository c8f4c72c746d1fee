"""Talking to remotes by https: who is trusted, and who is not."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from servicekit.config import StartError
from services.git import authorities
from services.git.credentials import Credentials
from services.git.draft import Draft
from services.git.errors import AccessDenied, RemoteForbidden
from services.git.push import Target
from services.git.remote import Rules
from tests.git.authority import Authority
from tests.git.http_remote import PASSWORD, Server, serving
from tests.git.parts import CALLER, Parts, parts, run_git, write

ADA = replace(CALLER, credentials=Credentials(username="ada", password=PASSWORD))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@contextmanager
def served(tmp_path: Path, source: Path, certificate: Path) -> Iterator[Server]:
    root = tmp_path / "served"
    root.mkdir()
    run_git(tmp_path, "clone", "-q", "--bare", str(source), str(root / "app.git"))
    run_git(root / "app.git", "config", "http.receivepack", "true")
    with serving(root, certificate) as state:
        yield state


@asynccontextmanager
async def trusting(tmp_path: Path, server: Server, file: Path | None) -> AsyncIterator[Parts]:
    """The service's parts with `file` as COVE_GIT__CA_FILE, and the server's host allowed."""
    rules = Rules(allowed_hosts=frozenset([f"localhost:{server.port}"]))
    async with parts(tmp_path / "state", rules, authorities=authorities.read(file)) as git:
        yield git


def url(server: Server) -> str:
    return f"https://localhost:{server.port}/app.git"


async def test_clone_and_push_by_https_with_a_password(
    tmp_path: Path, source: Path, authority: Authority
) -> None:
    with served(tmp_path, source, authority.issue("localhost")) as server:
        async with trusting(tmp_path, server, authority.certificate) as git:
            with pytest.raises(AccessDenied):
                await git.create(url(server))
            created = await git.create(url(server), caller=ADA)
            assert created.base_commit == run_git(source, "rev-parse", "HEAD")
            record, workspace = await git.ready()
            write(workspace, "new", "new\n")
            done = await git.committer.commit(record, workspace, Draft(message="Change"))
            await git.pusher.push(record, workspace, Target(), ADA)
    assert run_git(tmp_path / "served" / "app.git", "rev-parse", "work") == done.commit


@pytest.mark.parametrize(
    ("host", "days", "trusted"),
    [
        ("localhost", 2, "nothing but the system's"),
        ("localhost", 2, "another authority"),
        ("elsewhere.example", 2, "the right authority"),
        ("localhost", -1, "the right authority"),
    ],
    ids=["unknown authority", "wrong authority", "wrong host name", "expired"],
)
async def test_a_certificate_that_proves_nothing_is_refused_with_a_remedy(
    tmp_path: Path, source: Path, authority: Authority, host: str, days: int, trusted: str
) -> None:
    file: Path | None = authority.certificate
    if trusted != "the right authority":
        wrong = trusted == "another authority"
        file = Authority(tmp_path / "other").certificate if wrong else None
    with served(tmp_path, source, authority.issue(host, days=days)) as server:
        async with trusting(tmp_path, server, file) as git:
            with pytest.raises(RemoteForbidden) as caught:
                await git.create(url(server), caller=ADA)
    assert caught.value.metadata["rule"] == "certificate"
    assert "COVE_GIT__CA_FILE" in caught.value.remedy
    assert server.requests == [], "something was sent to a host that is not trusted"


def test_a_file_without_certificates_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing\n")
    for name in ("empty.pem", "absent.pem"):
        with pytest.raises(StartError):
            authorities.read(tmp_path / name)


def test_the_systems_authorities_stay_trusted(authority: Authority) -> None:
    both = authorities.read(authority.certificate)
    assert authority.certificate.read_bytes() in both
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    if system.exists():
        assert system.read_bytes().strip() in both
