"""Commits kept on a second node: sent, checked, found again by a worktree, released."""

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.git.v1 import git_pb2 as pb
from servicekit import status
from services.git import mending
from tests.git.node import ACME, Moment, Node
from tests.git.parts import add_commit, make_source, run_git
from tests.servicekit.failing import answered
from tests.support.walking import all_in

ONLY: Final = pb.Worktree.STATE_COMMITS_ONLY
POINTS: Final = int(os.environ.get("COVE_KILL_POINTS", "36"))
MOST: Final = 200 << 10
"""Bytes of a repository on the second node."""
NOBODY: Final = (("cove-tenant", "zenith"), ("cove-principal", "zoe"))


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Node, Node]]:
    """That of worktrees, and the one that keeps their commits."""
    home = tmp_path_factory.mktemp("n")
    for name in ("a", "b"):
        (home / name).mkdir()
    small = {"COVE_GIT__MAX_REPOSITORY_BYTES": str(MOST)}
    async with Node(home / "a") as one, Node(home / "b", small) as other:
        yield one, other


@pytest.fixture
def uid() -> str:
    """Of a worktree that no other test has."""
    return "".join(secrets.choice("abcdefgh") for _ in range(16))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


async def create(node: Node, repository: str, uid: str, **more: Any) -> pb.Worktree:
    request = pb.CreateWorktreeRequest(uid=uid, repository=repository, branch="work", **more)
    return (await node.stub.CreateWorktree(request, metadata=ACME)).worktree


async def commit(node: Node, uid: str, name: str) -> str:
    """Commit a new file; the commit's id."""
    folder = node.git / "worktrees" / uid
    tree = next(path for path in (folder / "upper", folder / "tree") if path.is_dir())
    owner = tree.stat()
    (tree / name).write_text(f"{name}\n")
    os.chown(tree / name, owner.st_uid, owner.st_gid)
    request = pb.CreateCommitRequest(uid=uid, commit=pb.Commit(message=name))
    return (await node.stub.CreateCommit(request, metadata=ACME)).commit.id


async def exported(
    node: Node, uid: str, have: Iterable[str] = ()
) -> tuple[pb.ExportedCommits, bytes]:
    call = node.stub.ExportCommits(pb.ExportCommitsRequest(uid=uid, have=have), metadata=ACME)
    messages = [message async for message in call]
    pack = b"".join(each.data for each in messages)
    assert messages[-1].end.bytes == len(pack)
    return messages[0].header, pack


def parts(
    header: pb.ImportCommitsHeader, pack: bytes, *, end: int | None = None
) -> list[pb.ImportCommitsRequest]:
    pieces = [pack[at : at + 50_000] for at in range(0, len(pack), 50_000)]
    return [
        pb.ImportCommitsRequest(header=header),
        *(pb.ImportCommitsRequest(data=piece) for piece in pieces),
        pb.ImportCommitsRequest(end=pb.PackEnd(bytes=len(pack) if end is None else end)),
    ]


async def send(node: Node, messages: Iterable[Any], caller: Any = ACME) -> str:
    answer = await answered(node.stub.ImportCommits(iter(messages), metadata=caller))
    return str(answer.commit)


async def imported(
    node: Node, uid: str, repository: str, sent: tuple[pb.ExportedCommits, bytes], **more: Any
) -> str:
    header = pb.ImportCommitsHeader(
        uid=uid,
        repository=repository,
        commit=sent[0].commit,
        prerequisites=sent[0].prerequisites,
    )
    header.MergeFrom(pb.ImportCommitsHeader(**more))
    return await send(node, parts(header, sent[1]))


async def refused(call: Awaitable[Any]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return ErrorReason.Name(status.reason(caught.value)).removeprefix("ERROR_REASON_")


def left(node: Node, uid: str) -> list[Path]:
    """What there is of a worktree, or of a repository of its own."""
    return [path for path in all_in(node.git) if uid in path.name and "checkouts" not in path.parts]


async def test_a_worktree_comes_back_from_commits_that_no_origin_has(
    nodes: tuple[Node, Node], source: Path, uid: str
) -> None:
    one, other = nodes
    url = f"file://{source}"
    base = (await create(one, url, uid)).base_commit
    first = await commit(one, uid, "first")
    sent = await exported(one, uid, [base, "0" * 40])
    assert list(sent[0].prerequisites) == [base]
    assert await imported(other, uid, url, sent) == first
    assert await imported(other, uid, url, sent) == first
    # The next ones need only what is new; what is there already is no step back.
    second = await commit(one, uid, "second")
    later = await exported(one, uid, [first])
    assert await imported(other, uid, url, later) == second
    assert await imported(other, uid, url, sent) == second
    kept = (await other.worktrees())[uid]
    assert (kept.state, kept.kept_commit, kept.tenant) == (ONLY, second, "acme")
    # Not even the repository is left of the origin.
    source.rename(source.with_name("away"))
    made = await create(other, url, uid, revision=second)
    assert (made.head_commit, made.branch) == (second, "work")
    tree = next((other.git / "checkouts").glob(f"*/*/{second}/tree"), None)
    folder = tree or other.git / "worktrees" / uid / "tree"
    assert (folder / "second").read_text() == "second\n"
    source.with_name("away").rename(source)
    pushed = pb.PushBranchRequest(uid=uid, remote_branch="saved")
    await other.stub.PushBranch(pushed, metadata=ACME)
    assert run_git(source, "rev-parse", "saved") == second
    # The worktree alone goes, then what is kept.
    asked = pb.RemoveWorktreeRequest(uid=uid, keep_commits=True)
    assert (await other.stub.RemoveWorktree(asked, metadata=ACME)).existed
    assert (await other.worktrees())[uid].kept_commit == second
    asked = pb.RemoveWorktreeRequest(uid=uid)
    assert (await other.stub.RemoveWorktree(asked, metadata=ACME)).existed
    assert not (await other.stub.RemoveWorktree(asked, metadata=ACME)).existed
    assert uid not in await other.worktrees()
    await other.fsck()


async def test_an_own_repository_is_kept_whole_and_nothing_is_left_of_it(
    nodes: tuple[Node, Node], uid: str
) -> None:
    one, other = nodes
    await create(one, "", uid)
    assert await refused(exported(one, uid)) == "REVISION_NOT_FOUND"
    first = await commit(one, uid, "first")
    assert await imported(other, uid, "", await exported(one, uid)) == first
    (repository,) = other.git.glob(f"repositories/acme/own-{uid}.git")
    assert not mending.unknown_refs(repository, [])
    await other.kill()
    await other.start()
    assert (await other.worktrees())[uid].kept_commit == first
    assert (await create(other, "", uid, revision=first)).head_commit == first
    await other.stub.RemoveWorktree(pb.RemoveWorktreeRequest(uid=uid), metadata=ACME)
    assert not left(other, uid)


async def test_what_is_wrong_changes_nothing(
    nodes: tuple[Node, Node], source: Path, uid: str
) -> None:
    one, other = nodes
    url = f"file://{source}"
    base = (await create(one, url, uid)).base_commit
    first = await commit(one, uid, "first")
    thin = await exported(one, uid, [base])
    header = pb.ImportCommitsHeader(uid=uid, repository=url, commit=first, prerequisites=[base])
    whole = parts(header, thin[1])
    none = pb.ImportCommitsHeader(uid=uid, commit=first, prerequisites=[base])
    other_commit = pb.ImportCommitsHeader(uid=uid, repository=url, commit="1" * 40)
    flipped = bytearray(thin[1])
    flipped[len(flipped) // 2] ^= 0x40
    cases: list[tuple[str, list[Any]]] = [
        ("UPLOAD_INCOMPLETE", whole[:-1]),
        ("UPLOAD_INCOMPLETE", parts(header, thin[1], end=1)),
        ("INVALID_FIELD", whole[1:]),
        ("INVALID_FIELD", [whole[0], *whole]),
        ("INVALID_FIELD", parts(_with(header, commit="main"), thin[1])),
        ("INVALID_FIELD", parts(_with(header, prerequisites=["main"]), thin[1])),
        ("COMMITS_MISSING", parts(none, thin[1])),
        ("COMMITS_MISSING", parts(_with(header, prerequisites=["2" * 40]), thin[1])),
        ("COMMITS_INVALID", parts(header, bytes(flipped))),
        ("COMMITS_INVALID", parts(header, b"PACK" + bytes(1000))),
        ("COMMITS_INVALID", parts(header, b"")),
        ("COMMITS_INVALID", parts(other_commit, thin[1])),
        # Without its prerequisite a thin pack is not complete, in a repository of its own.
        ("COMMITS_INVALID", parts(pb.ImportCommitsHeader(uid=uid, commit=first), thin[1])),
        ("REMOTE_FORBIDDEN", parts(_with(header, repository="ext::sh"), thin[1])),
    ]
    for reason, messages in cases:
        assert await refused(send(other, messages)) == reason, messages[0]
        assert uid not in await other.worktrees()
    # Broken off by its sender.
    call = other.stub.ImportCommits(metadata=ACME)
    await call.write(whole[0])
    call.cancel()
    assert await send(other, whole) == first
    assert await refused(send(other, whole, NOBODY)) == "WORKTREE_EXISTS"
    assert await refused(send(other, parts(none, b""))) == "WORKTREE_EXISTS"
    strange = pb.ExportCommitsRequest(uid=uid)
    assert await refused(_all(one.stub.ExportCommits(strange, metadata=NOBODY))) == (
        "WORKTREE_NOT_FOUND"
    )
    asked = pb.RemoveWorktreeRequest(uid=uid)
    assert not (await other.stub.RemoveWorktree(asked, metadata=NOBODY)).existed
    assert (await other.worktrees())[uid].kept_commit == first
    await other.fsck()
    assert not other.leftovers()


async def test_objects_that_git_does_not_take_are_not_kept(
    nodes: tuple[Node, Node], tmp_path: Path, uid: str
) -> None:
    _, other = nodes
    hostile = make_source(tmp_path / "hostile")
    tree = run_git(hostile, "rev-parse", "HEAD^{tree}")
    blob = run_git(hostile, "hash-object", "-w", "README")

    def packed(kind: str, data: bytes, *more: str) -> tuple[str, bytes]:
        options = ("-t", kind, "-w", "--literally", "--stdin")
        made = run_git(hostile, "hash-object", *options, stdin=data)
        if kind == "tree":
            made = run_git(hostile, "commit-tree", made, "-m", "x")
        for name in ("pack.pack", "pack.idx"):
            for old in hostile.glob(f"{name.partition('.')[0]}-*"):
                old.unlink()
        names = "\n".join([made, *more]).encode()
        if kind == "tree":
            names += b"\n" + run_git(hostile, "rev-parse", f"{made}^{{tree}}").encode()
        run_git(hostile, "pack-objects", "-q", "pack", stdin=names)
        return made, next(hostile.glob("pack-*.pack")).read_bytes()

    person = b"Ada <ada@example.org> 1 +0000"
    git_entry = b"40000 .git\0" + bytes.fromhex(tree)
    escape = b"100644 ../up\0" + bytes.fromhex(blob)
    lines = b"tree %s\nauthor %s\ncommitter %s\n\nx\n" % (tree.encode(), person, person)
    orphan = b"tree %s\nparent %s\n" % (tree.encode(), b"3" * 40) + lines.partition(b"\n")[2]
    cases = [
        packed("tree", git_entry, tree, blob),
        packed("tree", escape, blob),
        packed("commit", b"tree " + tree.encode() + b"\nnonsense\n\nx\n", tree, blob),
        # A parent, and the files, that are nowhere.
        packed("commit", orphan, tree, blob),
        packed("commit", lines),
        # What is no commit.
        (blob, packed("commit", lines, tree, blob)[1]),
    ]
    for made, pack in cases:
        header = pb.ImportCommitsHeader(uid=uid, commit=made)
        assert await refused(send(other, parts(header, pack))) == "COMMITS_INVALID", made
    assert not left(other, uid)


async def test_too_much_is_refused_before_it_is_taken_in(
    nodes: tuple[Node, Node], uid: str
) -> None:
    _, other = nodes
    header = pb.ImportCommitsHeader(uid=uid, commit="1" * 40)
    assert await refused(send(other, parts(header, bytes(2 * MOST)))) == "REPOSITORY_TOO_LARGE"
    assert not left(other, uid)


@pytest.mark.long
async def test_a_part_of_an_origin_is_kept_as_the_same_part(
    nodes: tuple[Node, Node], source: Path, uid: str
) -> None:
    one, other = nodes
    add_commit(source, {"README": "again\n"})
    url = f"file://{source}"
    part = {"revision": "main", "depth": 1, "filter": "blob:none"}
    base = (await create(one, url, uid, **part)).base_commit
    first = await commit(one, uid, "first")
    assert await refused(exported(one, uid)) == "COMMITS_MISSING"
    assert await imported(other, uid, url, await exported(one, uid, [base]), **part) == first
    again = {**part, "revision": first}
    assert (await create(other, url, uid, **again)).head_commit == first


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_killed_at_any_point_it_is_kept_or_not_and_a_retry_does_it(
    nodes: tuple[Node, Node], source: Path, uid: str
) -> None:
    one, other = nodes
    url = f"file://{source}"
    base = (await create(one, url, uid)).base_commit
    own = uid[::-1]
    await create(one, "", own)
    cases: list[tuple[str, str, list[str]]] = [(uid, url, [base]), (own, "", [])]
    early = 0
    for number in range(POINTS):
        uid, repository, have = cases[number % 2]
        last = await commit(one, uid, f"n{number}")
        sent = await exported(one, uid, have)
        header = pb.ImportCommitsHeader(
            uid=uid, repository=repository, commit=last, prerequisites=sent[0].prerequisites
        )
        moment = Moment(event=1 + number % 12)
        early += await other.cut_off(send(other, parts(header, sent[1])), moment)
        kept = (await other.worktrees()).get(uid)
        assert kept is None or kept.kept_commit in ("", last)
        if all((path / "HEAD").exists() for path in other.git.glob("repositories/*/*.git")):
            await other.fsck()  # Else one was not even begun.
        assert await send(other, parts(header, sent[1])) == last
        asked = pb.RemoveWorktreeRequest(uid=uid)
        removing: Callable[[], Awaitable[Any]] = lambda: other.stub.RemoveWorktree(  # noqa: E731
            asked,  # noqa: B023
            metadata=ACME,
        )
        if number % 3 == 0:
            await other.cut_off(removing(), Moment(event=1 + number % 4))
        await removing()
        assert uid not in await other.worktrees()
        await other.fsck()
    assert early > POINTS // 4
    assert not left(other, own)


def _with(header: pb.ImportCommitsHeader, **fields: Any) -> pb.ImportCommitsHeader:
    made = pb.ImportCommitsHeader()
    made.CopyFrom(header)
    for name in fields:
        made.ClearField(name)  # type: ignore[arg-type]
    made.MergeFrom(pb.ImportCommitsHeader(**fields))
    return made


async def _all(call: Any) -> list[Any]:
    return [each async for each in call]
