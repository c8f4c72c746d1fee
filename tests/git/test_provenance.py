"""Signed notes on commits: what they say, who may read them, and that they cannot be changed."""

import base64
import json
import stat
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.protobuf.timestamp_pb2 import Timestamp

from cove.git.v1 import git_pb2 as pb
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.provenance import Key, Unproven, verify
from servicekit.config import StartError
from services.git.app import git
from services.git.config import Config
from services.git.signing import Signer
from tests.git.parts import OTHER, UID, run_git

ACME = (("cove-tenant", "acme"), ("cove-principal", "ada"))
REQUEST_ID = "9b0f3a4e-8a53-4d9a-9a55-3f4d5b6c7d8e"
DIGEST = "ab" * 32


class Service:
    """The git service with worktrees of one repository."""

    def __init__(self, stub: GitServiceStub, state: Path, source: Path) -> None:
        self.stub = stub
        self.state = state
        self.source = source

    @property
    def store(self) -> Path:
        [path] = (self.state / "git" / "repositories").glob("*/*.git")
        return path

    async def create(self, uid: str = UID) -> None:
        request = pb.CreateWorktreeRequest(
            uid=uid, repository=str(self.source), branch=f"cove/{uid[0]}"
        )
        await self.stub.CreateWorktree(request, metadata=ACME)

    def write(self, text: str, uid: str = UID) -> None:
        folder = self.state / "git" / "worktrees" / uid
        tree = next(path for path in (folder / "upper", folder / "tree") if path.is_dir())
        (tree / "new.txt").write_text(text)

    async def commit(self, uid: str = UID, **changes: Any) -> str:
        """A commit with provenance, of whatever is new; its id."""
        provenance = changes.pop("provenance", account())
        request = pb.CreateCommitRequest(
            uid=uid, commit=pb.Commit(message="New"), provenance=provenance, **changes
        )
        return (await self.stub.CreateCommit(request, metadata=ACME)).commit.id

    async def find(self, revision: str = "", uid: str = UID) -> pb.GetProvenanceResponse:
        request = pb.GetProvenanceRequest(uid=uid, revision=revision)
        return await self.stub.GetProvenance(request, metadata=ACME)

    async def key(self) -> Key:
        return Key.load((await self.stub.GetSigningKey(pb.GetSigningKeyRequest())).public_key)

    async def worktree(self) -> pb.Worktree:
        request = pb.GetWorktreeRequest(uid=UID)
        return (await self.stub.GetWorktree(request, metadata=ACME)).worktree


def account(seconds: int = 0, **changes: Any) -> pb.Provenance:
    """What a gateway tells: one command that ran, looked up at 2 s and `seconds`."""
    ran = pb.ProvenanceExecution(
        id="test",
        command_sha256=DIGEST,
        start_time=Timestamp(seconds=1),
        end_time=Timestamp(seconds=2),
        code=0,
    )
    given: dict[str, Any] = {
        "workspace": "workspaces/demo",
        "executions": [ran],
        "time": Timestamp(seconds=2 + seconds),
    }
    return pb.Provenance(**given | changes)


@pytest.fixture
async def service(tmp_path: Path, source: Path) -> AsyncIterator[Service]:
    config = Config(state=tmp_path / "s", runtime=tmp_path / "r", local_roots=(Path("/"),))
    async with git(config) as served, grpc.aio.insecure_channel(served.address) as channel:
        made = Service(GitServiceStub(channel), tmp_path / "s", source)
        await made.create()
        yield made


async def test_what_was_signed_of_a_commit_is_proven(service: Service, source: Path) -> None:
    base = run_git(source, "rev-parse", "HEAD")
    service.write("1\n")
    commit = await service.commit()
    found = await service.find()
    key = await service.key()
    proven = verify(found.envelope, key, found.commit_object)
    assert (proven.commit, found.commit) == (commit, commit)
    assert (proven.workspace, proven.uid) == ("workspaces/demo", UID)
    assert (proven.tenant, proven.principal) == ("acme", "ada")
    assert (proven.repository, proven.branch) == (f"file://{source}", "cove/a")
    assert proven.base_commit == base
    [ran] = proven.executions
    assert (ran.id, ran.command_sha256, dict(ran.exit)) == ("test", DIGEST, {"code": 0})
    assert proven.key_id == key.id
    assert proven.statement["subject"] == [
        {"name": f"git+file://{source}", "digest": {"gitCommit": commit}}
    ]


async def test_a_commit_is_without_unless_it_was_asked_for(service: Service) -> None:
    service.write("1\n")
    request = pb.CreateCommitRequest(uid=UID, commit=pb.Commit(message="Plain"))
    made = await service.stub.CreateCommit(request, metadata=ACME)
    assert not made.commit.trailers
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.find()
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert not (await service.worktree()).HasField("provenance_time")


async def test_stock_git_shows_the_note_and_the_trailer(service: Service) -> None:
    service.write("1\n")
    commit = await service.commit()
    found = await service.find()
    assert found.ref == f"refs/notes/cove/{UID}"
    shown = run_git(service.store, "notes", f"--ref=cove/{UID}", "show", commit)
    assert shown == found.envelope
    trailer = run_git(
        service.store, "log", "-1", "--format=%(trailers:key=Cove-Workspace,valueonly)", commit
    )
    assert trailer == UID
    assert run_git(service.store, "cat-file", "commit", commit).encode() == (
        found.commit_object.rstrip()
    )
    run_git(service.store, "fsck", "--strict")


async def test_notes_of_several_commits_and_worktrees_stand_beside_each_other(
    service: Service,
) -> None:
    await service.create(OTHER)
    key = await service.key()
    made = []
    for number in range(2):
        for uid in (UID, OTHER):
            service.write(f"{number}\n", uid)
            made.append((uid, await service.commit(uid)))
    for uid, commit in made:
        # Whichever worktree of the repository is asked.
        for asked in (UID, OTHER):
            found = await service.find(commit, asked)
            assert verify(found.envelope, key, found.commit_object).uid == uid
    refs = run_git(service.store, "for-each-ref", "--format=%(refname)", "refs/notes")
    assert refs.split() == [f"refs/notes/cove/{UID}", f"refs/notes/cove/{OTHER}"]


async def test_a_retry_writes_the_note_that_a_failure_left_out(service: Service) -> None:
    service.write("1\n")
    blocked = service.store / "refs" / "notes"
    blocked.write_text("no directory\n")
    with pytest.raises(grpc.aio.AioRpcError):
        await service.commit(request_id=REQUEST_ID)
    head = (await service.worktree()).head_commit
    blocked.unlink()
    # What ran is told anew by a retry, and is no other request for that.
    again = await service.commit(request_id=REQUEST_ID, provenance=account(seconds=1))
    assert again == head
    found = await service.find()
    assert verify(found.envelope, await service.key(), found.commit_object).commit == head
    assert (await service.worktree()).provenance_time.seconds == 3
    assert await service.commit(request_id=REQUEST_ID, provenance=account(seconds=2)) == head
    assert (await service.find()).envelope == found.envelope


async def test_a_request_without_is_another_than_one_with_provenance(service: Service) -> None:
    service.write("1\n")
    await service.commit(request_id=REQUEST_ID)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.commit(request_id=REQUEST_ID, provenance=None)
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS


async def test_the_time_up_to_which_is_told_goes_on_with_each(service: Service) -> None:
    service.write("1\n")
    await service.commit()
    assert (await service.worktree()).provenance_time.seconds == 2
    service.write("2\n")
    await service.commit(provenance=account(seconds=7))
    assert (await service.worktree()).provenance_time.seconds == 9
    found = await service.find()
    proven = verify(found.envelope, await service.key(), found.commit_object)
    assert (proven.since.timestamp(), proven.time.timestamp()) == (2, 9)


async def test_what_ran_still_is_remembered_until_its_end_is_told(service: Service) -> None:
    service.write("1\n")
    going = pb.ProvenanceExecution(
        id="going", command_sha256=DIGEST, start_time=Timestamp(seconds=1)
    )
    await service.commit(provenance=account(executions=[going]))
    assert [*(await service.worktree()).provenance_running] == ["going"]
    service.write("2\n")
    await service.commit()
    assert not (await service.worktree()).provenance_running


async def test_what_began_after_the_commit_is_not_told(service: Service) -> None:
    service.write("1\n")
    late = pb.ProvenanceExecution(
        id="late", command_sha256=DIGEST, start_time=Timestamp(seconds=1 << 32)
    )
    await service.commit(provenance=account(executions=[late], time=Timestamp(seconds=1 << 33)))
    # So it is told the next time.
    assert (await service.worktree()).provenance_time.seconds < late.start_time.seconds
    found = await service.find()
    assert not verify(found.envelope, await service.key(), found.commit_object).executions


async def test_a_push_takes_the_notes_of_its_worktree_and_no_others(
    service: Service, source: Path
) -> None:
    await service.create(OTHER)
    for uid in (UID, OTHER):
        service.write("1\n", uid)
        await service.commit(uid)
    plain = await service.stub.PushBranch(pb.PushBranchRequest(uid=UID), metadata=ACME)
    assert plain.provenance_ref == ""
    assert run_git(source, "for-each-ref", "refs/notes") == ""
    request = pb.PushBranchRequest(uid=UID, provenance=True)
    pushed = await service.stub.PushBranch(request, metadata=ACME)
    assert pushed.provenance_ref == f"refs/notes/cove/{UID}"
    refs = run_git(source, "for-each-ref", "--format=%(refname)", "refs/notes")
    assert refs == f"refs/notes/cove/{UID}"
    service.write("2\n")
    commit = await service.commit()
    await service.stub.PushBranch(request, metadata=ACME)
    shown = run_git(source, "notes", f"--ref=cove/{UID}", "show", commit)
    assert shown == (await service.find()).envelope


async def test_no_branch_arrives_without_the_notes_that_were_to_go_with_it(
    service: Service, source: Path
) -> None:
    service.write("1\n")
    await service.commit()
    blob = run_git(source, "hash-object", "-w", "--stdin", stdin=b"theirs")
    run_git(source, "notes", f"--ref=cove/{UID}", "add", "-C", blob, "HEAD")
    request = pb.PushBranchRequest(uid=UID, provenance=True)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.PushBranch(request, metadata=ACME)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert run_git(source, "branch", "--list", "cove/a") == ""


async def test_a_push_of_a_worktree_without_notes_is_an_ordinary_one(
    service: Service, source: Path
) -> None:
    request = pb.PushBranchRequest(uid=UID, provenance=True)
    pushed = await service.stub.PushBranch(request, metadata=ACME)
    assert (pushed.remote_branch, pushed.provenance_ref) == ("cove/a", "")


async def test_notes_go_with_their_worktree(service: Service) -> None:
    await service.create(OTHER)
    service.write("1\n")
    await service.commit()
    await service.stub.RemoveWorktree(pb.RemoveWorktreeRequest(uid=UID), metadata=ACME)
    assert run_git(service.store, "for-each-ref", "refs/notes") == ""


async def test_the_key_is_made_once_and_is_nobody_elses(service: Service) -> None:
    path = service.state / "git" / "signing.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    answer = await service.stub.GetSigningKey(pb.GetSigningKeyRequest())
    assert Signer.load(path).key_id == answer.key_id == Key.load(answer.public_key).id
    path.chmod(0o644)
    with pytest.raises(StartError, match="others may read it"):
        Signer.load(path)
    path.chmod(0o600)
    path.write_text("nonsense")
    with pytest.raises(StartError, match="not a private key"):
        Signer.load(path)


def resigned(envelope: str, change: Callable[[dict[str, Any]], None], signer: Signer) -> str:
    """The envelope of a statement that was changed, signed by `signer`."""
    statement = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    change(statement)
    return signer.envelope(statement)


async def test_nothing_can_be_changed(service: Service, tmp_path: Path) -> None:
    service.write("1\n")
    await service.commit()
    first = await service.find()
    service.write("2\n")
    await service.commit()
    found = await service.find()
    key = await service.key()
    theirs = Signer.load(tmp_path / "theirs.key")
    envelope, commit = json.loads(found.envelope), found.commit_object
    verify(found.envelope, key, commit)

    def refused(changed: str | bytes, data: bytes, why: str, *keys: Key) -> None:
        with pytest.raises(Unproven, match=why):
            verify(changed, keys or [key], data)

    def with_payload(text: str, old: str, new: str) -> str:
        payload = base64.b64decode(envelope["payload"]).decode()
        assert old in payload, text
        changed = payload.replace(old, new).encode()
        return json.dumps(envelope | {"payload": base64.b64encode(changed).decode()})

    for old, new in (('"ada"', '"eve"'), ('"code":0', '"code":1'), (DIGEST, "cd" * 32)):
        refused(with_payload("statement", old, new), commit, "signature does not hold")
    signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    signature[0] ^= 1
    changed = {"keyid": key.id, "sig": base64.b64encode(signature).decode()}
    refused(json.dumps(envelope | {"signatures": [changed]}), commit, "signature does not hold")
    refused(json.dumps(envelope | {"signatures": []}), commit, "another key: none")
    refused(json.dumps(envelope | {"payloadType": "text/plain"}), commit, "not an in-toto")
    refused(found.envelope, first.commit_object, "of another commit")
    refused(first.envelope, commit, "of another commit")
    refused(found.envelope, commit.replace(b"New", b"Old"), "of another commit")
    refused(found.envelope, commit, "signed by another key", Key.load(theirs.public_key))
    refused(resigned(found.envelope, lambda _: None, theirs), commit, "signed by another key")
    for nonsense in ("", "[]", "{}", '{"payload": 1}', "\xff", "[" * 100_000):
        refused(nonsense, commit, "JSON|form")


async def test_a_key_signs_nothing_else_for_a_commit(service: Service) -> None:
    service.write("1\n")
    await service.commit()
    found = await service.find()
    signer = Signer.load(service.state / "git" / "signing.key")
    key, commit = await service.key(), found.commit_object

    def changed(change: Callable[[dict[str, Any]], None]) -> str:
        return resigned(found.envelope, change, signer)

    verify(changed(lambda _: None), key, commit)
    for envelope, why in (
        (changed(lambda said: said.update(_type="x")), "not an in-toto statement"),
        (changed(lambda said: said.update(predicateType="x")), "not Cove's provenance"),
        (changed(lambda said: said.update(subject=[])), "of another commit"),
        (changed(lambda said: said["subject"].append(said["subject"][0])), "of another commit"),
        (changed(lambda said: said.update(predicate=None)), "form"),
        (changed(lambda said: said["predicate"].pop("principal")), "form"),
        (changed(lambda said: said["predicate"]["workspace"].update(uid=OTHER)), "trailer"),
    ):
        with pytest.raises(Unproven, match=why):
            verify(envelope, key, commit)


def test_another_implementation_of_dsse_agrees() -> None:
    """The example of the specification's own test vector for the encoding, and a plain check."""
    private = Ed25519PrivateKey.generate()
    signer = Signer(private)
    envelope = json.loads(signer.envelope({"_type": "x"}))
    payload = base64.b64decode(envelope["payload"])
    kind = "application/vnd.in-toto+json"
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    private.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert envelope["signatures"][0]["keyid"] == sha256(raw).hexdigest()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert pem.decode() not in signer.envelope({})
