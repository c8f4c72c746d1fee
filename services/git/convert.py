"""Turns what the service knows into messages of its API, and requests into its terms."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from cove.git.v1 import git_pb2 as pb
from cove.mount.v1 import mount_pb2
from servicekit.errors import InvalidArgument
from services.git import diff, history, provenance
from services.git.changes import Skipped
from services.git.credentials import Credentials
from services.git.draft import Draft, Person, check_draft
from services.git.kept import Kept
from services.git.making import Phase
from services.git.record import Mode, Record, Snapshot, State
from services.git.status import Change, Entry
from services.git.workspace import Paths

_STATES: Final = {
    State.CREATING: pb.Worktree.STATE_CREATING,
    State.READY: pb.Worktree.STATE_READY,
    State.REMOVING: pb.Worktree.STATE_CREATING,
}
_WORK: Final = {
    Change.UNTRACKED: pb.StatusEntry.WORK_STATE_UNTRACKED,
    Change.ADDED: pb.StatusEntry.WORK_STATE_UNTRACKED,
    Change.MODIFIED: pb.StatusEntry.WORK_STATE_MODIFIED,
    Change.DELETED: pb.StatusEntry.WORK_STATE_DELETED,
    Change.RENAMED: pb.StatusEntry.WORK_STATE_RENAMED,
    Change.TYPE_CHANGED: pb.StatusEntry.WORK_STATE_TYPE_CHANGED,
}
_XATTRS: Final = {
    Mode.TRUSTED: mount_pb2.Mount.XATTRS_TRUSTED,
    Mode.USER: mount_pb2.Mount.XATTRS_USER,
}
_CHANGES: Final = {
    Change.ADDED: pb.DiffFile.CHANGE_ADDED,
    Change.MODIFIED: pb.DiffFile.CHANGE_MODIFIED,
    Change.DELETED: pb.DiffFile.CHANGE_DELETED,
    Change.RENAMED: pb.DiffFile.CHANGE_RENAMED,
    Change.TYPE_CHANGED: pb.DiffFile.CHANGE_TYPE_CHANGED,
}
_EXITS: Final = {"code": "code", "signal": "signal", "ended_by": "endedBy"}


def time(moment: float) -> Timestamp:
    """A point in time, given in seconds since the epoch."""
    fraction, whole = math.modf(moment)
    return Timestamp(seconds=int(whole), nanos=int(fraction * 1_000_000_000))


def seconds(message: Timestamp) -> float:
    """A point in time, as seconds since the epoch."""
    return message.seconds + message.nanos / 1_000_000_000


def credentials(message: pb.Credentials) -> Credentials:
    """What a caller proves itself with; empty if it sent nothing."""
    return Credentials(
        username=message.https.username,
        password=message.https.password,
        private_key=message.ssh.private_key,
        known_hosts=message.ssh.known_hosts,
    )


def worktree(record: Record, head: str, phase: Phase) -> pb.Worktree:
    """A worktree as it is now."""
    return pb.Worktree(
        uid=record.uid,
        tenant=record.tenant,
        repository=record.repository,
        revision=record.revision,
        branch=record.branch,
        base_commit=record.base_commit,
        head_commit=head,
        state=_STATES[record.state],
        phase=phase.name,
        phase_done=phase.done,
        phase_total=phase.total,
        create_time=time(record.create_time),
        snapshots=map(snapshot, record.snapshots),
        provenance_time=time(record.provenance_time) if record.provenance_time else None,
        provenance_running=record.provenance_running,
    )


def kept(record: Kept, commit: str) -> pb.Worktree:
    """Commits that are kept of a worktree on another node."""
    return pb.Worktree(
        uid=record.uid,
        tenant=record.tenant,
        repository=record.repository,
        state=pb.Worktree.STATE_COMMITS_ONLY,
        create_time=time(record.create_time),
        kept_commit=commit,
    )


def mount(
    record: Record, paths: Paths, objects: Path, layers: Path, state: Path
) -> mount_pb2.Mount:
    """How provider puts it into a sandbox; paths are below `state`."""

    def below(path: Path) -> str:
        return str(path.relative_to(state))

    made = mount_pb2.Mount(
        version=2,
        mode=mount_pb2.Mount.MODE_PLAIN if paths.plain else mount_pb2.Mount.MODE_OVERLAY,
        objects=below(objects),
        lock=below(paths.lock),
        outside=below(paths.outside),
    )
    if paths.plain:
        made.worktree = below(paths.tree)
        return made
    made.lowers.extend(map(below, paths.lowers))
    made.upper, made.work = below(paths.tree), below(paths.work)
    made.xattrs = _XATTRS[record.mode]
    made.stack, made.layers = below(paths.stack), below(layers)
    return made


def snapshot(found: Snapshot) -> pb.Snapshot:
    """A worktree as it was."""
    return pb.Snapshot(id=found.id, head_commit=found.head, create_time=time(found.time))


def entry(found: Entry) -> pb.StatusEntry:
    """A path that differs from the head."""
    path, raw_path = path_of(found.path)
    old_path, raw_old_path = path_of(found.old_path)
    return pb.StatusEntry(
        path=path,
        raw_path=raw_path,
        old_path=old_path,
        raw_old_path=raw_old_path,
        work_state=_WORK[found.work],
        submodule=found.submodule,
    )


def event(found: diff.Event) -> pb.GetDiffResponse:
    """An event of a diff."""
    match found:
        case diff.File():
            return pb.GetDiffResponse(file=_file(found))
        case diff.Patch(data, truncated):
            return pb.GetDiffResponse(patch=pb.DiffPatch(data=data, truncated=truncated))
        case diff.End(files, additions, deletions, truncated):
            end = pb.DiffEnd(
                files=files, additions=additions, deletions=deletions, truncated=truncated
            )
            return pb.GetDiffResponse(end=end)


def _file(found: diff.File) -> pb.DiffFile:
    path, raw_path = path_of(found.path)
    old_path, raw_old_path = path_of(found.old_path)
    return pb.DiffFile(
        path=path,
        raw_path=raw_path,
        old_path=old_path,
        raw_old_path=raw_old_path,
        change=_CHANGES.get(found.change, pb.DiffFile.CHANGE_MODIFIED),
        old_mode=found.old_mode,
        new_mode=found.new_mode,
        binary=found.binary,
        additions=found.additions,
        deletions=found.deletions,
    )


def limits(message: pb.DiffLimits) -> diff.Limits:
    """Where a diff is cut."""
    return diff.Limits().at_most(message.files, message.lines, message.bytes, message.file_bytes)


def draft(request: pb.CreateCommitRequest, principal: str) -> Draft:
    """A commit to be made for `principal`. Raises `InvalidArgument` for what no commit can hold."""
    wanted = request.commit
    trailers = [(trailer.key, trailer.value) for trailer in wanted.trailers]
    account = None
    if request.HasField("provenance"):
        trailers.append((provenance.TRAILER, request.uid))
        account = _account(request.provenance, principal)
    made = Draft(
        message=wanted.message,
        author=author(wanted),
        trailers=trailers,
        provenance=account,
        expected_head=request.expected_head,
        paths=paths(request.paths),
        request_id=request.request_id,
    )
    return check_draft(made)


def author(wanted: pb.Commit) -> Person | None:
    """Who a commit to be made is by; None: the server."""
    if wanted.HasField("author") and (wanted.author.name or wanted.author.email):
        return Person(wanted.author.name, wanted.author.email)
    return None


def _account(message: pb.Provenance, principal: str) -> provenance.Account:
    return provenance.Account(
        workspace=message.workspace,
        principal=principal,
        executions=[_execution(one) for one in message.executions],
        omitted=message.executions_omitted,
        time=seconds(message.time),
    )


def _execution(message: pb.ProvenanceExecution) -> provenance.Execution:
    how = message.WhichOneof("exit")
    return provenance.Execution(
        id=message.id,
        command=message.command_sha256,
        start=seconds(message.start_time),
        end=seconds(message.end_time),
        exit={_EXITS[how]: getattr(message, how)} if how else {},
    )


def paths(names: Sequence[str], most: int = 0) -> list[bytes]:
    """Paths relative to the worktree's root. Raises `InvalidArgument` for others, and for more
    than `most` bytes together, if that is given."""
    encoded = [name.encode() for name in names]
    if most and sum(map(len, encoded)) > most:
        raise InvalidArgument("paths", f"at most {most} bytes together: name directories")
    for path in encoded:
        if path.startswith(b"/") or b".." in path.split(b"/") or b"\0" in path:
            raise InvalidArgument("paths", "a path is relative to the worktree's root")
    return encoded


def commit(found: history.Commit) -> pb.Commit:
    """A commit that is there."""
    return pb.Commit(
        id=found.id,
        parents=found.parents,
        tree=found.tree,
        message=found.message,
        author=_signature(found.author),
        committer=_signature(found.committer),
        trailers=[pb.Trailer(key=key, value=value) for key, value in found.trailers],
    )


def branch(found: history.Branch) -> pb.Branch:
    """A branch that a worktree can see."""
    kind = pb.Branch.KIND_ORIGIN if found.fetched else pb.Branch.KIND_REPOSITORY
    if found.own:
        kind = pb.Branch.KIND_OWN
    return pb.Branch(name=found.name, head_commit=found.head, kind=kind)


def skipped(found: Skipped) -> pb.SkippedPath:
    """A path that a commit had to leave out."""
    path, raw_path = path_of(found.path)
    return pb.SkippedPath(path=path, raw_path=raw_path, reason=found.reason)


def _signature(found: history.Signature) -> pb.Signature:
    return pb.Signature(name=found.name, email=found.email, time=time(max(found.time, 0)))


def path_of(raw: bytes) -> tuple[str, bytes]:
    """A path as text, or as bytes when it is not UTF-8."""
    try:
        return raw.decode(), b""
    except UnicodeDecodeError:
        return "", raw
