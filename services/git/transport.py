"""Talks to remotes: lists, fetches and pushes, each in a cell without workspace data.

A repository on this machine is served by `git upload-pack` or `receive-pack` in
a second cell, as the owner of that repository and without network, and the two
are joined by pipes. So nothing of its configuration counts in ours.
"""

import asyncio
import os
import re
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git.cell import Bind, Cell, Cells, Identity, owner_of
from services.git.command import Command, Where, git
from services.git.credentials import Credentials
from services.git.errors import (
    AccessDenied,
    RemoteForbidden,
    RemoteUnavailable,
    RepositoryNotFound,
    RepositoryTooLarge,
    RevisionNotFound,
)
from services.git.process import Result, Running, TooMuchOutput, close_all
from services.git.remote import Remote, Rules, Scheme

STORE: Final = "/run/cell/store"
_PROGRESS: Final = re.compile(r"(?:remote: )?([A-Z][a-z]+ [a-z]+): +\d+% \((\d+)/(\d+)\)")
_WHOLE_IDS: Final = ("core.abbrev", "40")  # What push prints is read.
_WATCH_INTERVAL: Final = 0.25
_LIST_LIMIT: Final = 64 << 20

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The refs of a remote. `head_branch` is empty when HEAD is detached or absent."""

    head: str
    head_branch: str
    refs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long a conversation may take, in seconds, and how large a repository may get."""

    timeout: float
    repository_bytes: int


class Transport:
    def __init__(self, cells: Cells, rules: Rules, bounds: Bounds, state: Path) -> None:
        self._cells = cells
        self._rules = rules
        self._bounds = bounds
        self._state = state

    async def listing(self, remote: Remote, credentials: Credentials) -> Listing:
        """Ask for all branches and tags. Raises what `_failure` makes."""
        async with self._connected(remote, credentials, None, "ls-remote", ()) as running:
            result = await self._finish(running, remote)
        return _listing(result.output)

    async def fetch(
        self,
        remote: Remote,
        credentials: Credentials,
        store: Path,
        refspecs: Sequence[str],
        progress: Progress,
    ) -> None:
        """Fetch into the bare repository `store`, as `refspecs` say."""
        options = ["--progress", "--prune", "--no-tags"]
        async with self._connected(
            remote, credentials, store, "fetch", options, refspecs
        ) as running:
            running.on_error_line(lambda line: _report(line, progress))
            watch = asyncio.create_task(self._watch(store, running))
            try:
                await self._finish(running, remote)
                self._check_size(store)
            except RemoteUnavailable:
                if watch.done():
                    watch.result()
                raise
            finally:
                watch.cancel()
                with suppress(asyncio.CancelledError, RepositoryTooLarge):
                    await watch

    async def push(
        self,
        remote: Remote,
        credentials: Credentials,
        store: Path,
        refspec: str,
        lease: str | None,
    ) -> Result:
        """Push one refspec; `lease` is what `--force-with-lease` takes. Tells how git ended."""
        options = [] if lease is None else [f"--force-with-lease={lease}"]
        async with self._connected(
            remote, credentials, store, "push", options, [refspec]
        ) as running:
            return await self._finish(running, remote, failing=True)

    async def _finish(self, running: Running, remote: Remote, *, failing: bool = False) -> Result:
        try:
            async with asyncio.timeout(self._bounds.timeout):
                result = await running.finish(limit=_LIST_LIMIT)
        except TimeoutError:
            raise RemoteUnavailable("the remote took too long", repository=remote.url) from None
        except TooMuchOutput:
            raise RepositoryTooLarge(
                "the remote has too many refs", limit=str(_LIST_LIMIT)
            ) from None
        if result.code != 0 and not (failing and b"\t" in result.output):
            raise _failure(remote, result.errors)
        return result

    async def _watch(self, store: Path, running: Running) -> None:
        try:
            while True:
                await asyncio.sleep(_WATCH_INTERVAL)
                self._check_size(store)
        except RepositoryTooLarge:
            running.kill()
            raise

    def _check_size(self, store: Path) -> None:
        limit = self._bounds.repository_bytes
        if size_of(store) > limit:
            raise RepositoryTooLarge("the repository is too large", limit=str(limit))

    @asynccontextmanager
    async def _connected(
        self,
        remote: Remote,
        credentials: Credentials,
        store: Path | None,
        name: str,
        options: Sequence[str],
        refspecs: Sequence[str] = (),
    ) -> AsyncIterator[Running]:
        """Run `git <name> <remote>` while the block runs."""
        binds = [Bind(source=store, target=STORE, writable=name == "fetch")] if store else []
        identity = self._cells.keeper
        where_dir = STORE if store else "/nonexistent"
        async with AsyncExitStack() as stack:
            if remote.scheme is Scheme.FILE:
                ends, pipes = await self._serve(stack, remote, writing=name == "push")
                command = git(
                    Where(git_dir=where_dir),
                    name,
                    options,
                    values=[f"fd::{ends[0]},{ends[1]}", *refspecs],
                    config=[("protocol.fd.allow", "always"), _WHOLE_IDS],
                )
                cell = Cell(identity=identity, binds=binds)
                running = await stack.enter_async_context(
                    self._cells.started(cell, command, descriptors=ends)
                )
                close_all(pipes)
            else:
                cell, command = await self._network(
                    remote, credentials, identity, binds, where_dir, name, options, refspecs
                )
                running = await stack.enter_async_context(self._cells.started(cell, command))
            yield running

    async def _serve(
        self, stack: AsyncExitStack, remote: Remote, *, writing: bool
    ) -> tuple[tuple[int, int], list[int]]:
        """Serve a repository of this machine; the two descriptors are the other side's."""
        path = Path(remote.path)
        directory = git_directory(path)
        if directory is None or not any(
            directory.is_relative_to(root) for root in self._rules.local_roots
        ):
            raise RepositoryNotFound("no repository is there", repository=remote.url)
        owner = owner_of(directory)
        cell = Cell(
            identity=owner if self._cells.privileged else self._cells.keeper,
            roots=self._rules.local_roots,
            writable_roots=[directory] if writing else (),
            hidden=self._hidden(owner),
        )
        command = git(
            Where(git_dir=""),
            "receive-pack" if writing else "upload-pack",
            values=[remote.path],
            # Whoever may read the repository may name any commit of it.
            config=[("uploadpack.allowAnySHA1InWant", "true")],
        )
        pipes: list[int] = []
        stack.callback(close_all, pipes)
        their_in, our_out = os.pipe()
        pipes += [their_in, our_out]
        our_in, their_out = os.pipe()
        pipes += [our_in, their_out]
        await stack.enter_async_context(
            self._cells.started(cell, command, stdin=their_in, stdout=their_out)
        )
        return (our_in, our_out), pipes

    def _hidden(self, owner: Identity) -> Sequence[Path]:
        # Others cannot enter the state directory in the first place.
        inside = any(self._state.is_relative_to(root) for root in self._rules.local_roots)
        return [self._state] if inside and owner.uid == os.geteuid() else []

    async def _network(
        self,
        remote: Remote,
        credentials: Credentials,
        identity: Identity,
        binds: Sequence[Bind],
        git_dir: str,
        name: str,
        options: Sequence[str],
        refspecs: Sequence[str],
    ) -> tuple[Cell, Command]:
        address = await self._rules.address(remote)
        config = [(f"protocol.{remote.scheme.value}.allow", "always"), _WHOLE_IDS]
        variables = {}
        if remote.scheme is Scheme.SSH:
            files = credentials.ssh_files(identity.uid, identity.gid)
            variables["GIT_SSH_COMMAND"] = credentials.ssh_command(
                remote.host, remote.port, address
            )
            variables["GIT_SSH_VARIANT"] = "ssh"
        else:
            files = credentials.https_files()
            pinned = f"[{address}]" if ":" in address else address
            config += [
                *credentials.https_config(),
                ("http.curloptResolve", f"{remote.host}:{remote.port}:{pinned}"),
                ("http.lowSpeedLimit", "100"),
                ("http.lowSpeedTime", "60"),
            ]
        cell = Cell(identity=identity, binds=binds, files=files, network=True)
        where = Where(git_dir=git_dir, variables=variables)
        return cell, git(where, name, options, values=[remote.url, *refspecs], config=config)


def git_directory(path: Path) -> Path | None:
    """The directory with the objects of the repository at `path`; None if there is none.

    Follows the `.git` file of a linked worktree. Runs nothing.
    """
    if (path / "objects").is_dir() and (path / "HEAD").is_file():
        return path
    git_dir = path / ".git"
    if git_dir.is_file():
        text = _short_text(git_dir).removeprefix("gitdir:").strip()
        git_dir = path / text
        if common := _short_text(git_dir / "commondir").strip():
            git_dir = git_dir / common
    git_dir = git_dir.resolve()
    return git_dir if (git_dir / "objects").is_dir() else None


def size_of(store: Path) -> int:
    """Bytes of the packs in `store`, with those being received."""
    total = 0
    with suppress(FileNotFoundError):
        for entry in os.scandir(store / "objects" / "pack"):
            with suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_size
    return total


def _short_text(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.fsdecode(os.read(descriptor, 4096))
    finally:
        os.close(descriptor)


def _report(line: str, progress: Progress) -> None:
    if found := _PROGRESS.search(line):
        progress(found[1].lower(), int(found[2]), int(found[3]))


def _listing(output: bytes) -> Listing:
    head_branch, refs = "", {}
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: "):
            if name == "HEAD":
                head_branch = value.removeprefix("ref: ").removeprefix("refs/heads/")
        elif name == "HEAD" or name.startswith(("refs/heads/", "refs/tags/")):
            refs[name] = value
    return Listing(head=refs.pop("HEAD", ""), head_branch=head_branch, refs=refs)


def _failure(remote: Remote, errors: str) -> Exception:
    """What a failed conversation means to the caller."""
    text = errors.lower()
    cause = _cause(errors)

    def has(*words: str) -> bool:
        return any(word in text for word in words)

    if has("returned error: 30", "redirect"):
        return RemoteForbidden(
            "repository",
            "the remote redirects, which is not followed: give the address it redirects to",
            rule="redirects",
        )
    if has("couldn't find remote ref", "not our ref", "unadvertised object"):
        return RevisionNotFound("the repository has no such revision", repository=remote.url)
    if has(
        "authentication failed",
        "could not read username",
        "could not read password",
        "permission denied",
        "host key verification failed",
        "access denied",
        "returned error: 401",
        "returned error: 403",
        "no anonymous",
        "dubious ownership",
    ):
        return AccessDenied("the repository refused", repository=remote.url, cause=cause)
    if has("does not appear to be a git repository", "not found", "returned error: 404"):
        return RepositoryNotFound("no repository is there", repository=remote.url)
    return RemoteUnavailable("the remote broke off", repository=remote.url, cause=cause)


def _cause(errors: str) -> str:
    lines = [line for line in re.split(r"[\r\n]+", errors) if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ssh:"))]
    text = (telling or lines or [""])[0]
    return "".join(char for char in text if char.isprintable())[:300]
