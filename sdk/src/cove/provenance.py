"""Checks where a commit comes from: what Cove signed when it made it.

`verify` needs the commit, the envelope and a public key that is trusted, and asks nobody: it is
for what a gateway answered (`Source.provenance`) and for notes of a plain clone alike. It proves
that the holder of the key said this of exactly this commit, not that what was said suffices.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

TRAILER: Final = "Cove-Workspace"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:cove:provenance:v1"


class Unproven(ValueError):
    """What was said of the commit does not hold; the message tells why."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key that is trusted."""

    id: str
    """SHA-256 of its 32 bytes, 64 hex digits."""
    public: Ed25519PublicKey

    @classmethod
    def load(cls, pem: str | bytes) -> Self:
        """From PEM. Raises `ValueError` for what is no Ed25519 key."""
        found = load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
        if not isinstance(found, Ed25519PublicKey):
            raise ValueError("not an Ed25519 key")
        return cls(sha256(found.public_bytes_raw()).hexdigest(), found)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file in PEM. Raises `ValueError` and `OSError`."""
        return cls.load(path.read_bytes())


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ran in the workspace."""

    id: str
    command_sha256: str
    """See `command_sha256`."""
    started: datetime
    ended: datetime | None
    """None: it ran still."""
    exit: Mapping[str, int | str]
    """`code`, `signal` or `endedBy`; empty while it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What is proven of a commit."""

    commit: str
    key_id: str
    workspace: str
    """`workspaces/{id}`."""
    uid: str
    tenant: str
    principal: str
    """Who asked for the commit."""
    repository: str
    branch: str
    base_commit: str
    executions: Sequence[Ran]
    """The newest, oldest first, that ran since `since`."""
    executions_omitted: int
    since: datetime
    time: datetime
    statement: Mapping[str, Any]
    """All of it."""


def verify(envelope: str | bytes, keys: Key | Iterable[Key], commit: bytes) -> Provenance:
    """What is proven of a commit, given as git hashes it (`git cat-file commit ID`).

    Holds if one of the keys has signed the envelope, the statement is of Cove's type and of this
    commit, and the commit's last trailer `Cove-Workspace` names the workspace. Raises `Unproven`.
    """
    payload, key = _opened(envelope, [keys] if isinstance(keys, Key) else [*keys])
    statement = _read(payload, "the statement")
    id = sha1(b"commit %d\0%b" % (len(commit), commit), usedforsecurity=False).hexdigest()  # noqa: A001
    if statement.get("_type") != STATEMENT_TYPE:
        raise Unproven("what is signed is not an in-toto statement")
    if statement.get("predicateType") != PREDICATE_TYPE:
        raise Unproven("what is signed is not Cove's provenance")
    try:
        subjects = [subject["digest"]["gitCommit"] for subject in statement["subject"]]
        if subjects != [id]:
            raise Unproven(f"what is signed is of another commit: {', '.join(subjects)}")
        proven = _provenance(statement, id, key.id)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, Unproven):
            raise
        raise Unproven("the statement is not of the form it should be") from None
    named = workspace_of(commit)
    if named != proven.uid:
        raise Unproven(f"the trailer {TRAILER} says {named or 'nothing'}, not {proven.uid}")
    return proven


def workspace_of(commit: bytes) -> str:
    """The uid in the last trailer `Cove-Workspace`; empty without one."""
    message = commit.partition(b"\n\n")[2].decode("utf-8", "replace")
    found = ""
    for line in message.rstrip().rpartition("\n\n")[2].splitlines():
        key, colon, value = line.partition(": ")
        if colon and key == TRAILER:
            found = value.strip()
    return found


def command_sha256(
    *argv: str,
    script: str = "",
    interpreter: str = "sh",
    cwd: str = "",
    env: Iterable[str] = (),
) -> str:
    """The digest by which a command is known: of its words, its directory as it was given, and
    the names of its variables."""
    said = {
        "argv": [*argv],
        "cwd": cwd,
        "env": sorted(env),
        "interpreter": interpreter if script else "",
        "script": script,
    }
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


def _opened(envelope: str | bytes, keys: Sequence[Key]) -> tuple[bytes, Key]:
    """The payload, and the key that has signed it."""
    opened = _read(envelope, "the envelope")
    try:
        kind = opened["payloadType"].encode()
        payload = base64.b64decode(opened["payload"], validate=True)
        signatures = [base64.b64decode(each["sig"], validate=True) for each in opened["signatures"]]
        said = [str(each.get("keyid", "")) for each in opened["signatures"]]
    except (KeyError, TypeError, AttributeError, binascii.Error, ValueError):
        raise Unproven("the envelope is not of the form it should be") from None
    if kind != PAYLOAD_TYPE.encode():
        raise Unproven("what is signed is not an in-toto statement")
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    for key in keys:
        for signature in signatures:
            try:
                key.public.verify(signature, signed)
            except InvalidSignature:
                continue
            return payload, key
    if not any(key.id in said for key in keys):
        raise Unproven(f"it is signed by another key: {', '.join(said) or 'none'}")
    raise Unproven("the signature does not hold")


def _read(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Unproven(f"{what} is not JSON")
    return found


def _provenance(statement: dict[str, Any], commit: str, key_id: str) -> Provenance:
    said = statement["predicate"]
    return Provenance(
        commit=commit,
        key_id=key_id,
        workspace=str(said["workspace"]["name"]),
        uid=str(said["workspace"]["uid"]),
        tenant=str(said["workspace"]["tenant"]),
        principal=str(said["principal"]),
        repository=str(said["repository"]),
        branch=str(said["branch"]),
        base_commit=str((said["base"] or {}).get("gitCommit", "")),
        executions=[
            Ran(
                id=str(each["id"]),
                command_sha256=str(each["command"]["sha256"]),
                started=datetime.fromisoformat(each["startedOn"]),
                ended=datetime.fromisoformat(each["finishedOn"]) if each["finishedOn"] else None,
                exit=dict(each["exit"] or {}),
            )
            for each in said["executions"]
        ],
        executions_omitted=int(said["executionsOmitted"]),
        since=datetime.fromisoformat(said["executionsSince"]),
        time=datetime.fromisoformat(said["createdOn"]),
        statement=statement,
    )
