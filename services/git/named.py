"""What a revision names: a branch, a tag, or a commit by its id."""

from services.git.answers import Listing
from services.git.errors import RevisionNotFound
from services.git.repository import Repository


async def expand(repository: Repository, short: str) -> str:
    """The commit whose id begins so. Raises `RevisionNotFound`."""
    try:
        return await repository.resolve(short)
    except RevisionNotFound:
        raise RevisionNotFound(
            "the repository has no such revision, or several that begin so",
            revision=short,
            remedy="Name a branch, a tag or the full commit id.",
        ) from None


def choose(listing: Listing, revision: str) -> tuple[str, str]:
    """The branch, if it is one, and the object that `revision` names at the origin.

    Raises `RevisionNotFound`.
    """
    if not revision or revision == "HEAD":
        if listing.head or not listing.refs:
            return listing.head_branch, listing.head
        raise RevisionNotFound(
            "the repository's HEAD names no branch that exists",
            revision="HEAD",
            remedy="Name a branch, a tag or a commit as the revision.",
        )
    for prefix in ("refs/heads/", "refs/tags/", ""):
        name = f"{prefix}{revision}"
        if found := listing.refs.get(f"{name}^{{}}") or listing.refs.get(name):
            is_branch = name.startswith("refs/heads/")
            return name.removeprefix("refs/heads/") if is_branch else "", found
    raise RevisionNotFound("the repository has no such revision", revision=revision)
