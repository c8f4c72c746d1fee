"""What all parts of git's gRPC face stand on."""

from dataclasses import dataclass
from pathlib import Path

from cove.git.v1 import git_pb2 as pb
from cove.mount.v1 import mount_pb2
from servicekit import calls
from servicekit.fencing import Fences
from servicekit.ledger import Ledger
from servicekit.paging import PageTokens
from services.git import convert
from services.git.commit import Committer
from services.git.foresight import Foresight
from services.git.forks import Forks
from services.git.merge import Merger
from services.git.origins import Caller
from services.git.provenance import Notary
from services.git.push import Pusher
from services.git.record import Record
from services.git.replicas import Replicas
from services.git.worktrees import Worktrees


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the face speaks for."""

    worktrees: Worktrees
    committer: Committer
    pusher: Pusher
    notary: Notary
    forks: Forks
    merger: Merger
    foresight: Foresight
    replicas: Replicas
    ledger: Ledger
    fences: Fences
    tokens: PageTokens
    state: Path


class Face:
    """Holds what it speaks for."""

    def __init__(self, parts: Parts) -> None:
        self._worktrees = parts.worktrees
        self._committer = parts.committer
        self._pusher = parts.pusher
        self._notary = parts.notary
        self._forks = parts.forks
        self._merger = parts.merger
        self._foresight = parts.foresight
        self._replicas = parts.replicas
        self._ledger = parts.ledger
        self._fences = parts.fences
        self._tokens = parts.tokens
        self._state = parts.state

    def _worktree(self, record: Record) -> pb.Worktree:
        head = self._worktrees.repository_of(record).head(record.uid)
        worktree = convert.worktree(record, head, self._worktrees.phase(record.uid))
        if kept := self._replicas.kept.find(record.uid):
            worktree.kept_commit = self._replicas.commit(kept)
        return worktree

    def _mount(self, record: Record) -> mount_pb2.Mount:
        objects = self._worktrees.repository_of(record).objects
        layout = self._worktrees.layout
        paths = layout.paths(record)
        return convert.mount(record, paths, objects, layout.layers, self._state)


def tenant() -> str:
    """The caller's; empty: the suite itself."""
    return calls.current().identity.tenant


def caller(credentials: pb.Credentials) -> Caller:
    """Who asks, and by what that is proven to a remote."""
    identity = calls.current().identity
    return Caller(
        tenant=identity.tenant,
        principal=identity.principal,
        credentials=convert.credentials(credentials),
    )
