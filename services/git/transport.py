"""Talks to remotes: lists, fetches and pushes, each in a cell without workspace data.

A repository on this machine is served by `git upload-pack` or `receive-pack` in
a second cell, as the owner of that repository and without network, and the two
are joined by pipes. So nothing of its configuration counts in ours.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git import answers
from services.git.answers import Listing, Progress
from services.git.cell import Bind, Cell, Cells, Identity
from services.git.command import Command, Where, git
from services.git.credentials import Credentials
from services.git.errors import RemoteUnavailable, RepositoryTooLarge
from services.git.local import MEMORY, Local
from services.git.process import Result, Running, TooMuchOutput, close_all
from services.git.remote import Remote, Rules, Scheme, is_address

STORE: Final = "/run/cell/store"
_WHOLE_IDS: Final = ("core.abbrev", "40")  # What push prints is read.
_WARNINGS: Final = 20
_WATCH_INTERVAL: Final = 0.25
_LIST_LIMIT: Final = 64 << 20
_AUTHORITIES: Final = "/run/cell/authorities.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long a conversation may take, in seconds, and how large a repository may get."""

    timeout: float
    repository_bytes: int


class Transport:
    def __init__(
        self, cells: Cells, rules: Rules, bounds: Bounds, local: Local, authorities: bytes = b""
    ) -> None:
        self._cells = cells
        self._rules = rules
        self._bounds = bounds
        self._local = local
        self._authorities = authorities

    async def listing(self, remote: Remote, credentials: Credentials) -> Listing:
        """Ask for all branches and tags. Raises what `answers.failure` makes."""
        if remote.scheme is not Scheme.FILE:
            async with self._connected(remote, credentials, None, "ls-remote", ()) as running:
                result = await self._finish(running, remote)
            return answers.listed(result.output)
        cell, command = self._local.listing(remote)
        async with self._cells.started(cell, command) as running:
            result = await self._finish(running, remote)
        try:
            return answers.advertised(result.output)
        except ValueError:
            raise RemoteUnavailable("the remote broke off", repository=remote.url) from None

    async def fetch(
        self,
        remote: Remote,
        credentials: Credentials,
        store: Path,
        refspecs: Sequence[str],
        progress: Progress,
        more: Sequence[str] = (),
    ) -> str:
        """Fetch into the bare repository `store`, as `refspecs` and `more` options say.

        What git warns of. Raises `ShallowRefused` where the remote cannot cut its history.
        """
        options = ["--progress", "--prune", "--no-tags", *more]
        return await self._receive(remote, credentials, store, options, refspecs, progress)

    async def fetch_objects(
        self,
        remote: Remote,
        credentials: Credentials,
        store: Path,
        objects: Sequence[str],
        progress: Progress,
    ) -> str:
        """Fetch `objects`, by their ids, that a filter left out of `store`."""
        options = ["--progress", "--no-tags", "--filter=blob:none", "--stdin"]
        stdin = "".join(f"{one}\n" for one in objects).encode()
        return await self._receive(remote, credentials, store, options, (), progress, stdin)

    async def _receive(
        self,
        remote: Remote,
        credentials: Credentials,
        store: Path,
        options: Sequence[str],
        refspecs: Sequence[str],
        progress: Progress,
        stdin: bytes = b"",
    ) -> str:
        async with self._connected(
            remote, credentials, store, "fetch", options, refspecs
        ) as running:
            warnings: list[str] = []

            def listen(line: str) -> None:
                answers.report(line, progress)
                if line.startswith("warning: ") and len(warnings) < _WARNINGS:
                    warnings.append(line)

            running.on_error_line(listen)
            watch = asyncio.create_task(self._watch(store, running))
            try:
                await self._finish(running, remote, stdin=stdin)
                self._check_size(store)
                return "\n".join(warnings)
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

    async def _finish(
        self, running: Running, remote: Remote, *, failing: bool = False, stdin: bytes = b""
    ) -> Result:
        try:
            async with asyncio.timeout(self._bounds.timeout):
                result = await running.finish(stdin, limit=_LIST_LIMIT)
        except TimeoutError:
            raise RemoteUnavailable("the remote took too long", repository=remote.url) from None
        except TooMuchOutput:
            raise RepositoryTooLarge(
                "the remote has too many refs", limit=str(_LIST_LIMIT)
            ) from None
        if result.code != 0 and not (failing and b"\t" in result.output):
            raise answers.failure(remote, result.errors)
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
                ends, pipes = await self._local.serve(stack, remote, writing=name == "push")
                there, config = _addressed(f"fd::{ends[0]},{ends[1]}", options)
                command = git(
                    Where(git_dir=where_dir),
                    name,
                    options,
                    values=[there, *refspecs],
                    config=[("protocol.fd.allow", "always"), _WHOLE_IDS, *config],
                )
                cell = Cell(identity=identity, binds=binds, memory=MEMORY)
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
        files: dict[str, bytes] = {}
        if remote.scheme is Scheme.SSH:
            files.update(credentials.ssh_files(identity.uid, identity.gid))
            variables["GIT_SSH_COMMAND"] = credentials.ssh_command(
                remote.host, remote.port, address
            )
            variables["GIT_SSH_VARIANT"] = "ssh"
        else:
            files.update(credentials.https_files())
            pinned = f"[{address}]" if ":" in address else address
            if not is_address(remote.host):  # That is the address.
                config.append(("http.curloptResolve", f"{remote.host}:{remote.port}:{pinned}"))
            config += [
                *credentials.https_config(),
                ("http.lowSpeedLimit", "100"),
                ("http.lowSpeedTime", "60"),
            ]
            if self._authorities:
                files[_AUTHORITIES] = self._authorities
                config.append(("http.sslCAInfo", _AUTHORITIES))
        cell = Cell(identity=identity, binds=binds, files=files, memory=MEMORY, network=True)
        where = Where(git_dir=git_dir, variables=variables)
        there, more = _addressed(remote.url, options)
        return cell, git(where, name, options, values=[there, *refspecs], config=[*config, *more])


def _addressed(url: str, options: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """How git is told of a remote, and what it is told besides."""
    config = list[tuple[str, str]]()
    if "--stdin" in options:
        # The remote would not send what belongs to commits that are here.
        config.append(("fetch.negotiationAlgorithm", "noop"))
    if not any(option.startswith("--filter=") for option in options):
        return url, config
    # What may lack contents lacks those of a remote that has a name.
    return "origin", [*config, ("remote.origin.url", url)]


def size_of(store: Path) -> int:
    """Bytes of the packs in `store`, with those being received."""
    total = 0
    with suppress(FileNotFoundError), os.scandir(store / "objects" / "pack") as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_size
    return total
