"""What is checked of a signed envelope, without any server: the form, the key, the commit."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cove.provenance import Key, Unproven, command_sha256, verify, workspace_of

# A commit and what is signed of it, by the private key of 32 times the byte 7.
UID = "aaaaaaaaaaaaaaaa"
COMMIT = (
    b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
    b"author Ada <ada@example.org> 1 +0000\ncommitter Cove <cove@localhost> 1 +0000\n\n"
    b"Change\n\nCove-Workspace: " + UID.encode() + b"\n"
)
ID = "18e48f4ff25747631f5d693cc67445468f334a2d"
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
KIND = "application/vnd.in-toto+json"


def pem(public: Any) -> bytes:
    encoded: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


KEY = Key.load(pem(PRIVATE.public_key()))


def statement(**changes: Any) -> dict[str, Any]:
    predicate = {
        "workspace": {"name": "workspaces/demo", "uid": UID, "tenant": "acme"},
        "principal": "ada",
        "repository": "https://example.org/app.git",
        "revision": "main",
        "branch": "cove/demo",
        "base": None,
        "executions": [
            {
                "id": "test",
                "command": {"sha256": command_sha256("make", "test")},
                "startedOn": "2026-01-01T00:00:00.000Z",
                "finishedOn": None,
                "exit": None,
            }
        ],
        "executionsOmitted": 1,
        "executionsSince": "2026-01-01T00:00:00.000Z",
        "createdOn": "2026-01-01T00:01:00.000Z",
        "added later": "is no harm",
    }
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "git", "digest": {"gitCommit": ID}}],
        "predicateType": "urn:cove:provenance:v1",
        "predicate": predicate,
    } | changes


def envelope(said: object, kind: str = KIND) -> dict[str, Any]:
    payload = json.dumps(said).encode()
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    signature = {"keyid": KEY.id, "sig": base64.b64encode(PRIVATE.sign(signed)).decode()}
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [signature],
    }


def test_what_holds_is_told() -> None:
    other = Key.load(pem(Ed25519PrivateKey.generate().public_key()))
    proven = verify(json.dumps(envelope(statement())), [other, KEY], COMMIT)
    assert (proven.commit, proven.key_id, proven.uid) == (ID, KEY.id, UID)
    assert (proven.base_commit, proven.executions_omitted) == ("", 1)
    [ran] = proven.executions
    assert (ran.ended, dict(ran.exit)) == (None, {})


def test_a_key_id_is_a_hint_that_may_be_missing() -> None:
    found = envelope(statement())
    del found["signatures"][0]["keyid"]
    assert verify(json.dumps(found), KEY, COMMIT).commit == ID


def test_a_second_signature_may_be_somebody_elses() -> None:
    found = envelope(statement())
    found["signatures"].insert(0, {"keyid": "theirs", "sig": base64.b64encode(b"x" * 64).decode()})
    assert verify(json.dumps(found), KEY, COMMIT).commit == ID


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (envelope(statement(subject=[{"digest": {"gitCommit": "0" * 40}}])), "another commit"),
        (envelope(statement(subject=[{"digest": {"gitCommit": 1}}])), "another commit|form"),
        (envelope(statement(subject="x")), "form"),
        (envelope(statement(predicate=[])), "form"),
        (envelope([]), "not JSON"),
        (envelope(statement(), kind="text/plain"), "not an in-toto statement"),
        (envelope(statement()) | {"signatures": [{"sig": "!"}]}, "form"),
        (envelope(statement()) | {"signatures": {}}, "another key: none"),
        (envelope(statement()) | {"signatures": [1]}, "form"),
        (envelope(statement()) | {"payload": "!"}, "form"),
        (envelope(statement()) | {"payloadType": None}, "form"),
    ],
)
def test_what_does_not_hold_is_refused(found: dict[str, Any], why: str) -> None:
    with pytest.raises(Unproven, match=why):
        verify(json.dumps(found), KEY, COMMIT)


def test_without_a_key_nothing_is_proven() -> None:
    with pytest.raises(Unproven, match="another key"):
        verify(json.dumps(envelope(statement())), [], COMMIT)


def test_only_an_ed25519_key_is_one() -> None:
    with pytest.raises(ValueError, match="Ed25519"):
        Key.load(pem(X25519PrivateKey.generate().public_key()))
    with pytest.raises(ValueError, match="PEM"):
        Key.load("nonsense")


def test_the_last_trailer_counts_and_text_that_looks_like_one_does_not() -> None:
    head = b"tree x\n\n"
    assert workspace_of(head + b"S\n\nCove-Workspace: a\nCove-Workspace: b\n") == "b"
    assert workspace_of(head + b"S\n\nCove-Workspace: a\n\nReviewed-by: x\n") == ""
    assert workspace_of(head + b"S\n") == ""
    assert workspace_of(b"") == ""


def test_a_digest_is_of_words_directory_and_names_alone() -> None:
    assert command_sha256("make", "test") == command_sha256("make", "test", interpreter="bash")
    assert command_sha256("make test") != command_sha256("make", "test")
    assert command_sha256(script="x") != command_sha256("x")
    assert command_sha256("x", env=["B", "A"]) == command_sha256("x", env={"A": "1", "B": "2"})
