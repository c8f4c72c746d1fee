"""Talking to remotes: over HTTP with credentials."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from servicekit.disk import DiskFull
from services.git import answers, status
from services.git.credentials import Credentials
from services.git.draft import Draft
from services.git.errors import (
    AccessDenied,
    RemoteForbidden,
    RemoteUnavailable,
    RepositoryNotFound,
    RepositoryTooLarge,
    ShallowRefused,
)
from services.git.push import Pushed, Target
from services.git.remote import Rules
from tests.git.http_remote import PASSWORD, Server, serving
from tests.git.parts import CALLER, OTHER, UID, Parts, add_commit, parts, run_git, write

ADA = replace(CALLER, credentials=Credentials(username="ada", password=PASSWORD))


@pytest.fixture
def server(tmp_path: Path, source: Path) -> Iterator[Server]:
    root = tmp_path / "served"
    root.mkdir()
    run_git(tmp_path, "clone", "-q", "--bare", str(source), str(root / "app.git"))
    run_git(root / "app.git", "config", "http.receivepack", "true")
    with serving(root) as state:
        yield state


@dataclass(frozen=True)
class Web:
    git: Parts
    server: Server

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server.port}/app.git"


@pytest.fixture
async def web(tmp_path: Path, server: Server) -> AsyncIterator[Web]:
    hosts = frozenset([f"localhost:{server.port}"])
    state = tmp_path / "state"
    async with parts(state, Rules(allowed_hosts=hosts, http_hosts=hosts)) as made:
        yield Web(made, server)


async def change(git: Parts, name: str = "new", uid: str = UID) -> str:
    record, workspace = await git.ready(uid)
    write(workspace, name, "new\n")
    return (await git.committer.commit(record, workspace, Draft(message="Change"))).commit


async def test_clone_and_push_over_http_with_a_password(web: Web, tmp_path: Path) -> None:
    git = web.git
    await git.create(web.url, caller=ADA)
    commit = await change(git)
    record, workspace = await git.ready()
    pushed = await git.pusher.push(record, workspace, Target(), ADA)
    assert pushed == Pushed(url=web.url, branch="work", commit=commit, previous="")
    assert run_git(tmp_path / "served" / "app.git", "rev-parse", "work") == commit


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_host_may_be_given_by_its_address(
    address: str, tmp_path: Path, source: Path
) -> None:
    root = tmp_path / "served"
    root.mkdir()
    run_git(tmp_path, "clone", "-q", "--bare", str(source), str(root / "app.git"))
    try:
        with serving(root, address=address) as server:
            hosts = frozenset([f"{address}:{server.port}"])
            rules = Rules(allowed_hosts=hosts, http_hosts=hosts)
            async with parts(tmp_path / "state", rules) as git:
                host = f"[{address}]" if ":" in address else address
                made = await git.create(f"http://{host}:{server.port}/app.git", caller=ADA)
                assert made.base_commit == run_git(source, "rev-parse", "HEAD")
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        pytest.skip(f"this host has no {address}")


async def test_the_password_is_nowhere_on_the_disk(web: Web) -> None:
    await web.git.create(web.url, caller=ADA)
    found = [path for path in web.git.state.rglob("*") if path.is_file()]
    assert found
    assert not [path for path in found if PASSWORD.encode() in path.read_bytes()]


async def test_the_password_is_in_no_argument_or_environment(web: Web) -> None:
    seen: list[bytes] = []

    done = threading.Event()
    web.server.go_on = threading.Event()

    def look() -> None:
        assert web.server.go_on
        while not done.wait(0.002):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    seen.append((process / "cmdline").read_bytes())
                    seen.append((process / "environ").read_bytes())
            if any(b"fetch" in text for text in seen):
                web.server.go_on.set()

    looking = asyncio.create_task(asyncio.to_thread(look))
    try:
        await web.git.create(web.url, caller=ADA)
    finally:
        done.set()
        await looking
    assert any(b"fetch" in text for text in seen)
    assert not [text for text in seen if PASSWORD.encode() in text]


@pytest.mark.parametrize("password", ["", "wrong"])
async def test_a_wrong_password_is_refused_and_nothing_is_left(web: Web, password: str) -> None:
    caller = replace(CALLER, credentials=Credentials(username="ada", password=password))
    with pytest.raises(AccessDenied):
        await web.git.create(web.url, caller=caller)
    assert not list((web.git.state / "git" / "worktrees").iterdir())
    assert not list((web.git.state / "git" / "repositories").rglob("*.git"))


async def test_access_is_proven_even_for_what_is_here(web: Web) -> None:
    record = await web.git.create(web.url, caller=ADA)
    stranger = replace(CALLER, principal="eve")
    with pytest.raises(AccessDenied):
        await web.git.create(
            web.url, OTHER, revision=record.base_commit, branch="b", caller=stranger
        )
    asked = len(web.server.requests)
    await web.git.create(web.url, OTHER, revision=record.base_commit, branch="b", caller=ADA)
    assert len(web.server.requests) == asked, "a proof that is young enough was not used"


async def test_a_redirect_is_not_followed(web: Web, tmp_path: Path) -> None:
    with serving(tmp_path / "served") as elsewhere:
        web.server.redirect = f"http://localhost:{elsewhere.port}"
        with pytest.raises(RemoteForbidden) as caught:
            await web.git.create(web.url, caller=ADA)
        assert caught.value.metadata["rule"] == "redirects"
        assert elsewhere.requests == []


async def test_loopback_is_refused_where_it_is_not_listed(server: Server, tmp_path: Path) -> None:
    rules = Rules(http_hosts=frozenset(["localhost"]))
    async with parts(tmp_path / "state", rules) as git:
        with pytest.raises(RemoteForbidden):
            await git.create(f"http://localhost:{server.port}/app.git", caller=ADA)
    assert server.requests == []


async def test_ssh_is_started_with_our_address_and_settings(tmp_path: Path, source: Path) -> None:
    with serving(source) as gone:
        port = gone.port
    caller = replace(
        CALLER, credentials=Credentials(private_key="not a key", known_hosts="localhost x")
    )
    rules = Rules(allowed_hosts=frozenset([f"localhost:{port}"]))
    async with parts(tmp_path / "state", rules) as made:
        with pytest.raises(RemoteUnavailable) as caught:
            await made.create(f"ssh://git@localhost:{port}/x", caller=caller)
    assert caught.value.metadata["cause"].startswith(f"ssh: connect to host 127.0.0.1 port {port}")


async def test_an_unknown_repository_is_not_found(web: Web, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFound):
        await web.git.create(web.url.replace("app", "none"), caller=ADA)


async def test_nobody_there_is_unavailable(git: Parts, tmp_path: Path, source: Path) -> None:
    with serving(source) as gone:
        port = gone.port
    hosts = frozenset(["127.0.0.1"])
    async with parts(tmp_path / "other", Rules(allowed_hosts=hosts, http_hosts=hosts)) as made:
        with pytest.raises(RemoteUnavailable):
            await made.create(f"http://127.0.0.1:{port}/app.git")


async def test_a_repository_over_the_limit_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "large").write_bytes(os.urandom(8 << 20))
    add_commit(source, {})
    rules = Rules(local_roots=[Path("/")])
    async with parts(tmp_path / "state", rules, repository_bytes=1 << 20) as git:
        with pytest.raises(RepositoryTooLarge):
            await git.create(source)
        assert not list((git.state / "git" / "repositories").rglob("*.git"))


async def test_a_remote_that_leaves_nothing_out_is_told_of(web: Web, tmp_path: Path) -> None:
    record = await web.git.create(web.url, filter="blob:none", depth=1, caller=ADA)
    assert any("leave contents out" in warning for warning in record.warnings)
    _, workspace = await web.git.ready()
    assert not (await status.read(workspace, workspace.head)).entries
    await web.git.create(web.url, OTHER, branch="b", filter="blob:none", depth=1, caller=ADA)
    record, _ = await web.git.ready(OTHER)
    assert any("leave contents out" in warning for warning in record.warnings)
    run_git(tmp_path / "served" / "app.git", "config", "uploadpack.allowFilter", "true")
    able = await web.git.create(web.url, "c" * 16, branch="c", filter="blob:limit=1", caller=ADA)
    assert not able.warnings


async def test_a_remote_that_gives_no_single_commit_gives_all_branches(
    web: Web, source: Path, tmp_path: Path
) -> None:
    web.server.old = True
    first = run_git(source, "rev-parse", "HEAD")
    newer = add_commit(source, {"a": "1\n"})
    run_git(source, "push", "-q", str(tmp_path / "served" / "app.git"), "main")
    record = await web.git.create(web.url, revision=first, depth=1, caller=ADA)
    assert (record.base_commit, len(record.warnings)) == (first, 1)
    assert "no single commit" in record.warnings[0]
    _, workspace = await web.git.ready()
    assert await workspace.repository.has(newer)


def test_progress_that_a_remote_makes_up_is_only_a_number() -> None:
    """It is told to all who list worktrees while the one is made."""
    told: list[tuple[str, int, int]] = []
    for number in ("7", "9" * 18, "9" * 20, "9" * 5000):
        line = f"remote: Counting objects: 100% ({number}/{number})"
        answers.report(line, lambda *said: told.append(said))
    assert [done for _, done, _ in told] == [7, 10**18 - 1]


def test_words_of_a_remote_that_cannot_cut_are_understood() -> None:
    remote = Rules().parse("https://example.org/app.git")
    for words in (
        "fatal: Server does not support shallow clients",
        "fatal: dumb http transport does not support shallow capabilities",
    ):
        assert isinstance(answers.failure(remote, words), ShallowRefused)


def test_a_full_disk_of_the_remote_is_not_taken_for_ours() -> None:
    remote = Rules().parse("https://example.org/app.git")
    words = "error: file write error (No space left on device)"
    assert isinstance(answers.failure(remote, words), DiskFull)
    assert isinstance(answers.failure(remote, f"remote: {words}"), RemoteUnavailable)
