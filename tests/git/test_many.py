"""Many worktrees: made at once, and kept."""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from cove.git.v1 import git_pb2 as pb
from services.git.repository import head_ref
from tests.git.http_remote import PASSWORD, serving
from tests.git.node import ACME, Node, descendants
from tests.git.parts import make_source, run_git
from tests.git.test_service import program

AT_ONCE: Final = 100
DORMANT: Final = int(os.environ.get("COVE_DORMANT_WORKTREES", "2000"))
"""In `make test-long`."""
_SAMPLE: Final = 10
_MOST_DISK: Final = 64 << 10
"""Bytes of a dormant worktree."""
_BOUND: Final = 3.0
"""How many times what 10 cost the same may cost with very many."""
ADA: Final = pb.Credentials(https=pb.Credentials.Https(username="ada", password=PASSWORD))


def uid(number: int) -> str:
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    return "c" * 12 + "".join(digits[number >> 5 * place & 31] for place in range(4))


async def create(node: Node, number: int, repository: str) -> pb.CreateWorktreeResponse:
    request = pb.CreateWorktreeRequest(
        uid=uid(number), repository=repository, branch=f"cove/{uid(number)}"
    )
    if repository.startswith("http"):
        request.credentials.CopyFrom(ADA)
    answer: pb.CreateWorktreeResponse = await node.stub.CreateWorktree(request, metadata=ACME)
    return answer


@pytest.mark.long
async def test_a_hundred_at_once_of_an_unknown_repository_share_one_clone(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", {f"d/{n}": f"{n}\n" for n in range(200)})
    run_git(tmp_path, "clone", "-q", "--bare", str(source), str(tmp_path / "served" / "app.git"))
    head = run_git(source, "rev-parse", "HEAD")
    with serving(tmp_path / "served") as server:
        host = f"localhost:{server.port}"
        hosts = {"COVE_GIT__ALLOWED_HOSTS": host, "COVE_GIT__HTTP_HOSTS": host}
        async with Node(tmp_path / "node", hosts) as node:
            url = f"http://{host}/app.git"
            made = await asyncio.gather(*(create(node, n, url) for n in range(AT_ONCE)))
            assert server.fetches == 1
            assert {one.worktree.base_commit for one in made} == {head}
            assert len(await node.worktrees()) == AT_ONCE
            for number, one in enumerate(made):
                await _check(node, one, head, look=number % (AT_ONCE // _SAMPLE) == 0)
            assert node.leftovers() == []
            await node.fsck()


async def _check(node: Node, made: pb.CreateWorktreeResponse, head: str, *, look: bool) -> None:
    inside = program(made.mount, node.state)
    try:
        assert inside.git("rev-parse", "HEAD") == head
        if look:
            request = pb.GetWorktreeStatusRequest(uid=made.worktree.uid)
            status = (await node.stub.GetWorktreeStatus(request, metadata=ACME)).status
            assert (status.head_commit, status.total) == (head, 0)
            assert inside.git("status", "--porcelain") == ""
            assert inside.sh("cat d/*") == "\n".join(sorted(map(str, range(200)), key=str)) + "\n"
    finally:
        inside.close()


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_very_many_dormant_ones_cost_disk_and_little_else(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", {f"d/{n}": f"{n}\n" for n in range(200)})
    async with Node(tmp_path / "node") as node:
        for number in range(10):
            await create(node, number, str(source))
        few = await _costs(node, source, 10)
        for start in range(100, DORMANT, 20):
            await asyncio.gather(*(create(node, n, str(source)) for n in range(start, start + 20)))
        many = await _costs(node, source, 1 << 15)
        count = sum(1 for _ in (node.git / "worktrees").iterdir())
        disk = _disk(node, uid(DORMANT // 20 * 20 - 1))
        processes = len(set(descendants(node.pid)))
        before = time.monotonic()
        await node.kill()
        await node.start()
        started = time.monotonic() - before
        for name, (first, then) in {n: (few[n], many[n]) for n in few}.items():
            print(f"{name}: {first * 1e3:.1f} ms with 10, {then * 1e3:.1f} ms with {count}")  # noqa: T201
        print(f"{disk >> 10} KiB each; {processes} processes; a start takes {started:.1f} s")  # noqa: T201
        assert all(many[name] <= few[name] * _BOUND + 0.002 for name in few)
        assert disk <= _MOST_DISK
        assert processes < 50


async def _costs(node: Node, source: Path, first: int) -> dict[str, float]:
    """Seconds of a create, of the first page of a list, and of one status."""

    async def status() -> None:
        request = pb.GetWorktreeStatusRequest(uid=uid(0))
        await node.stub.GetWorktreeStatus(request, metadata=ACME)

    async def page() -> None:
        await node.stub.ListWorktrees(pb.ListWorktreesRequest(page_size=10), metadata=ACME)

    numbers = iter(range(first, first + 20))

    async def another() -> None:
        await create(node, next(numbers), str(source))

    return {
        "create": await _median(another),
        "list": await _median(page),
        "status": await _median(status),
    }


async def _median(work: Callable[[], Awaitable[None]]) -> float:
    took = []
    for _ in range(20):
        before = time.monotonic()
        await work()
        took.append(time.monotonic() - before)
    return statistics.median(took)


def _disk(node: Node, name: str) -> int:
    """Bytes on disk of one worktree: its directory and its ref."""
    paths = [node.git / "worktrees" / name, *(node.git / "worktrees" / name).rglob("*")]
    for store in node.git.glob("repositories/*/*.git"):
        ref = store / head_ref(name)
        paths += [ref, ref.parent]
    return sum(path.lstat().st_blocks * 512 for path in paths)
