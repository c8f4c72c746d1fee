"""As `convert`, for merges."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cove.git.v1 import git_pb2 as pb
from servicekit.errors import InvalidArgument
from services.git import convert
from services.git.collisions import PATHS, Collision
from services.git.conflicts import LIMIT, Conflict, Kind, Stage
from services.git.draft import Draft, check_draft
from services.git.foresight import Seen
from services.git.merge import Asked, Done, Preview, Strategy

_STRATEGIES: Final = {
    pb.MERGE_STRATEGY_UNSPECIFIED: Strategy.MERGE,
    pb.MERGE_STRATEGY_MERGE: Strategy.MERGE,
    pb.MERGE_STRATEGY_SQUASH: Strategy.SQUASH,
    pb.MERGE_STRATEGY_REBASE: Strategy.REBASE,
    pb.MERGE_STRATEGY_FAST_FORWARD: Strategy.FAST_FORWARD,
}
_FORESEEN_BYTES: Final = 2 << 20
"""Of all conflicts of an answer: further ones are counted."""
_MAKING: Final = (Strategy.MERGE, Strategy.SQUASH)


def asked(request: pb.PreviewMergeRequest | pb.MergeBranchRequest) -> Asked:
    """What to merge into what."""
    head = request.expected_target_head if isinstance(request, pb.MergeBranchRequest) else ""
    return Asked(
        source=request.source,
        target=request.target,
        strategy=_STRATEGIES[request.strategy],
        expected_head=head,
    )


def draft(request: pb.MergeBranchRequest) -> Draft:
    """The commit to be made; its message may be empty.

    Raises `InvalidArgument` for what no commit can hold, and where none is made.
    """
    wanted = request.commit
    given = wanted.message or wanted.trailers or wanted.HasField("author")
    if given and _STRATEGIES[request.strategy] not in _MAKING:
        raise InvalidArgument("commit", "with this strategy the commits stay what they are")
    made = Draft(
        message=wanted.message,
        author=convert.author(wanted),
        trailers=[(trailer.key, trailer.value) for trailer in wanted.trailers],
        request_id=request.request_id,
    )
    check_draft(made if made.message else replace(made, message="-"))
    return made


def preview(found: Preview, limit: int) -> pb.MergePreview:
    """What a merge would do, with at most `limit` conflicts; 0: as many as there may be."""
    merged, relation = found.merged, found.relation
    shown = merged.conflicts[: min(limit or LIMIT, LIMIT)]
    return pb.MergePreview(
        target=found.target.name,
        target_commit=found.target.head,
        target_time=convert.time(found.target.time),
        source_commit=found.source,
        base_commit=relation.base,
        ahead=relation.ahead,
        behind=relation.behind,
        mergeable=found.fits,
        unchanged=found.unchanged,
        conflicts=[_conflict(one) for one in shown],
        total_conflicts=merged.total,
        truncated=merged.total > len(shown),
        stopped_at=found.stopped_at,
        tree=merged.tree,
        changed_files=found.changed_files,
    )


def done(landed: Done) -> pb.MergeBranchResponse:
    """What a merge did."""
    return pb.MergeBranchResponse(
        remote=landed.url,
        target=landed.target,
        commit=convert.commit(landed.commit),
        previous_commit=landed.previous,
        unchanged=landed.unchanged,
    )


def foreseen(
    seen: Sequence[Seen], collisions: Sequence[Collision], limit: int
) -> pb.PreviewConflictsResponse:
    """Who collides with whom, with at most `limit` conflicts each; 0: as many as there may be."""
    answer, left = pb.PreviewConflictsResponse(), _FORESEEN_BYTES
    for one in seen:
        told = answer.worktrees.add(uid=one.uid, head_commit=one.head, uncommitted=one.uncommitted)
        if one.error is not None:
            told.error = str(one.error)
            told.error_reason = one.error.reason
    for collision in collisions:
        paths = collision.paths
        made = pb.WorktreeCollision(
            uid_a=collision.first, uid_b=collision.second, total_conflicts=paths.total
        )
        for conflict in paths.shown[: min(limit or PATHS, PATHS)]:
            converted = _conflict(conflict)
            left -= converted.ByteSize()
            if left < 0:
                break
            made.conflicts.append(converted)
        made.truncated = paths.total > len(made.conflicts)
        answer.collisions.append(made)
    return answer


def _conflict(found: Conflict) -> pb.MergeConflict:
    path, raw_path = convert.path_of(found.path)
    related = [convert.path_of(one)[0] for one in found.related]
    name = "UNSPECIFIED" if found.kind is Kind.OTHER else found.kind.name
    return pb.MergeConflict(
        path=path,
        raw_path=raw_path,
        related_paths=[one for one in related if one],
        kind=pb.MergeConflict.Kind.Value(f"KIND_{name}"),
        base=_stage(found.base),
        ours=_stage(found.ours),
        theirs=_stage(found.theirs),
        message=found.message,
    )


def _stage(found: Stage | None) -> pb.MergeStage | None:
    return pb.MergeStage(mode=found.mode, object_id=found.id) if found else None
