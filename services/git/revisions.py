"""What a revision means in a worktree."""

from services.git.command import is_commit_id
from services.git.errors import RevisionNotFound
from services.git.record import Record
from services.git.workspace import Workspace


async def find(record: Record, workspace: Workspace, revision: str) -> str:
    """The commit that a name or id means to the one who works in the worktree.

    The worktree's own branch (also as HEAD, or nothing) comes first, then tags,
    then the origin's branches; without an origin, those that were merged into.
    Raises `RevisionNotFound`.
    """
    head = workspace.head
    name = revision.removeprefix("refs/heads/")
    if name in ("", "HEAD", record.branch):
        if not head:
            raise RevisionNotFound("the branch has no commit yet", revision=revision)
        return head
    if is_commit_id(revision):
        return await workspace.repository.resolve(revision)
    short = name.removeprefix("refs/remotes/").removeprefix("origin/")
    branches = "refs/remotes/origin" if record.repository else "refs/heads"
    refs = (f"refs/tags/{name.removeprefix('refs/tags/')}", f"{branches}/{short}")
    known = await workspace.repository.refs(*refs)
    for ref in refs:
        if ref in known:
            return await workspace.repository.resolve(ref)
    raise RevisionNotFound("no such revision", revision=revision)
