"""What the origins of repositories have: asked for, proven, and fetched."""

import json
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from servicekit.aside import aside
from services.git import files, partial
from services.git.answers import Listing, Progress
from services.git.cell import Cells
from services.git.command import Where, git, is_commit_id
from services.git.credentials import Credentials
from services.git.errors import RevisionNotFound, ShallowRefused
from services.git.named import choose, expand
from services.git.partial import Partial
from services.git.remote import Remote
from services.git.repository import Repository
from services.git.transport import STORE, Transport

_SHORT_ID: Final = re.compile(r"[0-9a-f]{7,39}")
_IGNORED: Final = "filtering not recognized by server"
_NO_DEPTH: Final = "the remote cannot cut its history: all of it was fetched"
_NO_FILTER: Final = "the remote cannot leave contents out: all of them were fetched"
_NO_COMMIT: Final = "the remote gives no single commit: all branches were fetched, uncut"
_LISTING: Final = 300
_LISTING_BYTES: Final = 256 << 20
_REFSPECS: Final = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """For whom a repository is used, and by what that is proven to its origin."""

    tenant: str
    principal: str
    credentials: Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a revision is, as of `time` (seconds since the epoch); no commit: it is empty."""

    commit: str
    time: float
    branch: str = ""
    """The origin's branch that was meant, if it was one."""


class Origins:
    """Asks the origin of a repository, and keeps what it has there up with it."""

    def __init__(
        self,
        cells: Cells,
        transport: Transport,
        access_ttl: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`access_ttl`: seconds for which a caller's access stays proven."""
        self._cells = cells
        self._transport = transport
        self._access_ttl = access_ttl
        self._clock = clock
        self._proofs: dict[tuple[str, str, bytes, str], float] = {}
        self._secret = secrets.token_bytes(32)

    async def resolve(
        self,
        repository: Repository,
        remote: Remote,
        revision: str,
        caller: Caller,
        *,
        max_staleness: float,
        progress: Progress,
    ) -> Resolved:
        """Find out which commit `revision` is, and have it here. Call it locked."""
        if is_commit_id(revision):
            return await self._resolve_commit(repository, remote, revision, caller, progress)
        known = _read_origin(repository.path)
        proof = self._proof(caller, remote)
        fresh = known is not None and self._clock() - float(known["time"]) <= max_staleness
        if max_staleness > 0 and known is not None and fresh and self._is_proven(proof):
            with suppress(RevisionNotFound):
                return await self._resolve_here(repository, revision, known)
        short = _SHORT_ID.fullmatch(revision) is not None
        listing, moment = await self.freshen(
            repository, remote, caller, progress, None if short else revision
        )
        try:
            branch, commit = choose(listing, revision)
        except RevisionNotFound:
            if not short:
                raise
            branch, commit = "", await expand(repository, revision)
        return Resolved(commit=commit, time=moment, branch=branch)

    async def freshen(
        self,
        repository: Repository,
        remote: Remote,
        caller: Caller,
        progress: Progress,
        revision: str | None = None,
    ) -> tuple[Listing, float]:
        """List the origin and fetch what is new. Call it locked."""
        moment = self._clock()
        listing = await self._transport.listing(remote, caller.credentials)
        self._remember(self._proof(caller, remote), moment)
        if revision is not None:
            choose(listing, revision)  # An unknown one is told before anything is fetched.
        digest = sha256(json.dumps(sorted(listing.refs.items())).encode()).hexdigest()
        known = _read_origin(repository.path)
        if listing.refs and (known is None or known["digest"] != digest):
            part = repository.partial
            refspecs = part.refspecs(listing) if part else _REFSPECS
            if refspecs:
                await self._fetch(repository, remote, caller, refspecs, progress)
        origin = {
            "url": remote.url,
            "time": moment,
            "digest": digest,
            "head": listing.head,
            "head_branch": listing.head_branch,
        }
        # When it was asked last may be lost; what it was fetched at may not.
        durable = known is None or known["digest"] != digest
        path, data = origin_file(repository.path), json.dumps(origin).encode()
        await aside(files.write, path, data, durable=durable)
        return listing, moment

    async def branch(
        self, repository: Repository, remote: Remote, name: str, caller: Caller
    ) -> tuple[str, float]:
        """The head that a branch of the origin has now, which is here then; empty: there is none.

        And when the origin was asked. Call it locked.
        """
        listing, moment = await self.freshen(repository, remote, caller, lambda *_: None)
        head, ref = listing.refs.get(f"refs/heads/{name}", ""), f"refs/remotes/origin/{name}"
        if head in ("", (await repository.refs(ref)).get(ref)):
            return head, moment
        # Moved since it was listed, or by a push of ours and back again by others.
        if await repository.has(head):
            await repository.update_refs([f"update {ref} {head}"])
            return head, moment
        refspec = f"+refs/heads/{name}:{ref}"
        await self._fetch(repository, remote, caller, [refspec], lambda *_: None)
        return (await repository.refs(ref)).get(ref, ""), moment

    def asked_at(self, repository: Repository) -> float:
        """When the origin was asked last, in seconds since the epoch; 0: never."""
        known = _read_origin(repository.path)
        return float(known["time"]) if known else 0

    async def _resolve_commit(
        self,
        repository: Repository,
        remote: Remote,
        commit: str,
        caller: Caller,
        progress: Progress,
    ) -> Resolved:
        if await repository.has(commit) and self._is_proven(self._proof(caller, remote)):
            return Resolved(commit=commit, time=self._clock())
        _, moment = await self.freshen(repository, remote, caller, progress)
        if not await repository.has(commit):
            try:
                await self._fetch(repository, remote, caller, [commit], progress)
            except RevisionNotFound:
                if repository.partial is None:
                    raise
                # One that gives branches only: the commit may be in their history.
                await self._whole(repository, remote, caller, progress)
        return Resolved(commit=await repository.resolve(commit), time=moment)

    async def complete(
        self,
        repository: Repository,
        remote: Remote,
        commit: str,
        caller: Caller,
        progress: Progress,
    ) -> None:
        """Fetch the contents of `commit` that a filter left out. Call it locked."""
        part = repository.partial
        if part is None or not part.filter:
            return
        options = ["--objects", "--no-object-names", "--missing=print", "--no-walk"]
        listing = git(Where(git_dir=STORE), "rev-list", options, values=[f"{commit}^{{tree}}"])
        output = await self._cells.check(
            repository.cell(), listing, timeout=_LISTING, limit=_LISTING_BYTES
        )
        if lacking := partial.missing(output):
            await self._transport.fetch_objects(
                remote, caller.credentials, repository.path, lacking, progress
            )

    async def _fetch(
        self,
        repository: Repository,
        remote: Remote,
        caller: Caller,
        refspecs: Sequence[str],
        progress: Progress,
        *,
        cut: bool = True,
    ) -> None:
        part, path = repository.partial, repository.path
        if part is None:
            await self._transport.fetch(remote, caller.credentials, path, refspecs, progress)
            return
        known = await repository.refs("refs/remotes/origin/", "refs/tags/")
        first = cut and not known and not partial.shallow(path)
        try:
            said = await self._transport.fetch(
                remote, caller.credentials, path, refspecs, progress, part.options(first=first)
            )
        except ShallowRefused:
            part = await _warned(repository, part, _NO_DEPTH)
            said = await self._transport.fetch(
                remote, caller.credentials, path, refspecs, progress, part.options(first=False)
            )
        if _IGNORED in said:
            await _warned(repository, part, _NO_FILTER)
        await aside(partial.expose, path, self._cells.keeper)

    async def _whole(
        self, repository: Repository, remote: Remote, caller: Caller, progress: Progress
    ) -> None:
        """Fetch all branches and tags of an origin into a repository that was to hold a part."""
        part = repository.partial
        assert part
        await _warned(repository, part, _NO_COMMIT)
        await self._fetch(repository, remote, caller, _REFSPECS, progress, cut=False)

    async def _resolve_here(
        self, repository: Repository, revision: str, known: dict[str, str | float]
    ) -> Resolved:
        moment = float(known["time"])
        if not revision:
            return Resolved(
                commit=await repository.resolve(str(known["head"])),
                time=moment,
                branch=str(known["head_branch"]),
            )
        name = revision.removeprefix("refs/heads/")
        tag = f"refs/tags/{revision.removeprefix('refs/tags/')}"
        wanted = {f"refs/remotes/origin/{name}": name, tag: ""}
        found = await repository.refs(*wanted)
        for ref, branch in wanted.items():
            if ref in found:  # Nothing but a name: `main~1` is none.
                return Resolved(
                    commit=await repository.resolve(found[ref]), time=moment, branch=branch
                )
        raise RevisionNotFound("the repository has no such revision", revision=revision)

    def _proof(self, caller: Caller, remote: Remote) -> tuple[str, str, bytes, str]:
        digest = caller.credentials.digest(self._secret)
        return (caller.tenant, caller.principal, digest, remote.key)

    def _remember(self, proof: tuple[str, str, bytes, str], moment: float) -> None:
        oldest = moment - self._access_ttl
        self._proofs = {key: made for key, made in self._proofs.items() if made > oldest}
        self._proofs[proof] = moment

    def _is_proven(self, proof: tuple[str, str, bytes, str]) -> bool:
        age = self._clock() - self._proofs.get(proof, 0)
        return 0 <= age <= self._access_ttl


async def _warned(repository: Repository, part: Partial, warning: str) -> Partial:
    """Remember what came otherwise than was wanted."""
    if warning in part.warnings:
        return part
    told = replace(part, warnings=(*part.warnings, warning))
    await aside(partial.keep, repository.path, told)
    return told


def origin_file(path: Path) -> Path:
    """Beside a repository: when its origin was asked last, and what it had."""
    return path.with_suffix(".json")


def _read_origin(path: Path) -> dict[str, str | float] | None:
    try:
        found = json.loads(origin_file(path).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and "digest" in found else None
