"""Says of a commit where it comes from, in a signed note.

The note is one of `refs/notes/cove/<uid>`: a ref for each worktree, so that no two
write the same, and a push takes along nothing of another. A trailer of the commit
names the uid, and so the ref. The note is written after the branch has moved; when
that fails, the retry of the commit writes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from services.git import history
from services.git.command import Where, git
from services.git.errors import ProvenanceNotFound, failed
from services.git.record import Record
from services.git.records import Records
from services.git.repository import Repository
from services.git.signing import Signer
from services.git.transport import STORE
from services.git.workspace import Workspace

TRAILER: Final = "Cove-Workspace"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:cove:provenance:v1"
_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A command that ran; times in seconds since the epoch, 0: not yet."""

    id: str
    command: str
    """SHA-256 of what was to be run."""
    start: float
    end: float
    exit: dict[str, int | str]
    """How it ended; empty while it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is known of how a commit came about, besides what the worktree says."""

    workspace: str
    principal: str
    executions: Sequence[Execution]
    omitted: int
    time: float
    """When the executions were looked up, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Found:
    """A commit as git hashes it, and what was said of it."""

    commit: str
    data: bytes
    envelope: str
    ref: str


def notes_ref(uid: str) -> str:
    """The ref of the notes on a worktree's commits."""
    return f"refs/notes/cove/{uid}"


class Notary:
    """Signs and keeps what is said of commits, and finds it again."""

    def __init__(self, signer: Signer, records: Records, name: str, email: str) -> None:
        self.signer = signer
        self._records = records
        self._name = name
        self._email = email

    async def attest(self, workspace: Workspace, commit: history.Commit, account: Account) -> None:
        """Have a note on `commit`, unless there is one. Call it with the workspace locked."""
        record = self._records.ready(workspace.uid)
        repository, ref = workspace.repository, notes_ref(record.uid)
        if await _note(repository, ref, commit.id):
            return
        envelope = self.signer.envelope(_statement(record, commit, account))
        with repository.writing():
            await self._write(repository, ref, commit.id, envelope, account.time)
        told = replace(
            record,
            provenance_time=min(account.time, _end(commit)),
            provenance_running=tuple(one.id for one in account.executions if not one.exit),
        )
        # Lost, the next note tells of more than it must, not of less.
        await self._records.keep(told, durable=False)

    async def _write(
        self, repository: Repository, ref: str, commit: str, envelope: str, moment: float
    ) -> None:
        at = f"@{int(moment)} +0000"
        variables = {
            "GIT_NOTES_REF": ref,
            **{f"GIT_{who}_NAME": self._name for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": self._email for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_DATE": at for who in ("AUTHOR", "COMMITTER")},
        }
        command = git(Where(git_dir=STORE, variables=variables), "notes add", values=[commit])
        cell = repository.cell(writable=True)
        result = await repository.cells.run(cell, command, f"{envelope}\n".encode())
        if result.code != 0:
            raise failed(command.name, result.code, result.errors)


async def find(workspace: Workspace, commit: str) -> Found:
    """What was said of a commit, whichever worktree of the repository made it.

    Raises `ProvenanceNotFound`.
    """
    repository = workspace.repository
    command = git(Where(git_dir=STORE), "cat-file", ["-p"], values=[commit])
    data = await repository.cells.check(repository.cell(), command)
    text = data.partition(b"\n\n")[2].decode("utf-8", "replace")
    named = [value for key, value in history.split_trailers(text)[1] if key == TRAILER]
    ref = notes_ref(named[-1] if named else workspace.uid)
    envelope = await _note(repository, ref, commit)
    if not envelope:
        raise ProvenanceNotFound("no provenance of the commit is here", commit=commit)
    return Found(commit, data, envelope, ref)


async def is_kept(repository: Repository, uid: str) -> bool:
    """Whether there are notes on commits of a worktree."""
    return bool(await repository.refs(notes_ref(uid)))


async def _note(repository: Repository, ref: str, commit: str) -> str:
    """The note on a commit; empty when there is none."""
    if not await repository.refs(ref):
        return ""
    where = Where(git_dir=STORE, variables={"GIT_NOTES_REF": ref})
    command = git(where, "notes show", values=[commit])
    result = await repository.cells.run(repository.cell(), command, limit=_LIMIT)
    return result.output.decode("utf-8", "replace").strip() if result.code == 0 else ""


def _statement(record: Record, commit: history.Commit, account: Account) -> dict[str, Any]:
    # A retry may know of commands that began after the commit.
    before = [one for one in account.executions if one.start < _end(commit)]
    predicate = {
        "workspace": {"name": account.workspace, "uid": record.uid, "tenant": record.tenant},
        "principal": account.principal,
        "repository": record.repository,
        "revision": record.revision,
        "branch": record.branch,
        "base": {"gitCommit": record.base_commit} if record.base_commit else None,
        "executions": [_execution(one) for one in before],
        "executionsOmitted": account.omitted,
        "executionsSince": _time(record.provenance_time or record.create_time),
        "createdOn": _time(account.time),
    }
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {
                "name": f"git+{record.repository}" if record.repository else "git",
                "digest": {"gitCommit": commit.id},
            }
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }


def _end(commit: history.Commit) -> float:
    """When the second in which it was made was over."""
    return commit.committer.time + 1.0


def _execution(one: Execution) -> dict[str, Any]:
    return {
        "id": one.id,
        "command": {"sha256": one.command},
        "startedOn": _time(one.start),
        "finishedOn": _time(one.end) if one.end else None,
        "exit": one.exit or None,
    }


def _time(seconds: float) -> str:
    return (
        datetime.fromtimestamp(seconds, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
