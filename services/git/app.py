"""Puts git together. Nothing else in it makes its own parts."""

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from agent import overlay
from cove.git.v1.git_pb2_grpc import add_GitServiceServicer_to_server
from servicekit.config import StartError
from servicekit.disk import DiskGuard
from servicekit.fencing import Fences
from servicekit.ledger import Ledger
from servicekit.metrics import Timer, gauge
from servicekit.paging import PageTokens
from servicekit.server import Served, serving
from services.git import authorities
from services.git.cell import Cells
from services.git.checkouts import Checkouts
from services.git.collisions import Collisions
from services.git.commit import Committer
from services.git.config import Config
from services.git.draft import Person
from services.git.face import Parts
from services.git.foresight import Foresight
from services.git.forks import Forks
from services.git.layout import Layout
from services.git.local import Local
from services.git.maintenance import Maintenance
from services.git.merge import Merger
from services.git.mergetree import Merging
from services.git.origins import Origins
from services.git.provenance import Notary
from services.git.push import Pusher
from services.git.record import Mode
from services.git.records import Records
from services.git.remote import Rules
from services.git.replicas import Replicas
from services.git.repositories import Repositories
from services.git.service import GitServicer
from services.git.signing import Signer
from services.git.stacks import Stacks
from services.git.targets import Targets
from services.git.transport import Bounds, Transport
from services.git.uids import Uids
from services.git.worktrees import Worktrees

HOMES: Final[tuple[str, ...]] = ("repositories", "worktrees", "checkouts", "layers")
"""Directories of which cells are given parts."""
_DISK_LIMIT: Final = 0.9
_log = logging.getLogger(__name__)
_LOCK_TIMEOUT: Final = 60.0
_LOCK_INTERVAL: Final = 0.05


@asynccontextmanager
async def git(config: Config) -> AsyncIterator[Served]:
    """Serves while the block runs. One process at a time has the state directory."""
    directory = config.state / "git"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    rules = Rules(
        local_roots=config.local_roots,
        allowed_hosts=frozenset(config.allowed_hosts),
        http_hosts=frozenset(config.http_hosts),
        closed=config.state,
    )
    bounds = Bounds(
        timeout=config.remote_timeout.total_seconds(),
        repository_bytes=config.max_repository_bytes,
    )
    homes = [directory / name for name in HOMES]
    uids = Uids.open(directory, config.sandbox_uids)
    collected = CollectorRegistry()
    timer = Timer(
        collected, "cove_git_seconds", "How long git's commands and operations took.", "command"
    )
    cells = Cells(homes, uid_of=uids.of if uids else None, timed=timer.of)
    gauge(collected, "cove_git_cells", "Cells that are kept for commands.", lambda: cells.warm)
    local = Local(cells, rules, config.state)
    transport = Transport(cells, rules, bounds, local, authorities.read(config.ca_file))
    repositories = Repositories(homes[0], cells)
    origins = Origins(cells, transport, config.access_ttl.total_seconds())
    disk = DiskGuard(directory, _DISK_LIMIT)
    records = Records(homes[1])
    checkouts = Checkouts(
        homes[2], cells, config.checkout_cache, partial(in_use, records, repositories)
    )
    stacks = Stacks(homes[3], records, cells)
    worktrees = Worktrees(
        records,
        repositories,
        origins,
        checkouts,
        stacks,
        Layout(records, repositories, checkouts, homes[3], cells),
        mode(directory),
        cells,
        rules,
        local,
        disk,
    )
    server = Person(config.committer_name, config.committer_email)
    async with (
        cells,
        _owning(directory),
        Ledger.open(directory / "ledger.db") as ledger,
        Fences.open(directory / "fences.db", lambda uid: records.find(uid) is not None) as fences,
        AsyncExitStack() as stack,
    ):
        stack.push_async_callback(checkouts.close)
        await worktrees.load()
        maintenance = asyncio.create_task(Maintenance(records, repositories, disk).run())
        stack.push_async_callback(_ended, maintenance)
        notary = Notary(Signer.load(directory / "signing.key"), records, server.name, server.email)
        pusher = Pusher(rules, transport)
        targets = Targets(rules, repositories, origins, pusher)
        merging = Merging(cells)
        parts = Parts(
            worktrees=worktrees,
            committer=Committer(records, server, disk, notary=notary),
            notary=notary,
            forks=Forks(worktrees, stacks, cells, disk),
            pusher=pusher,
            merger=Merger(targets, merging, server, disk),
            foresight=Foresight(worktrees, Collisions(merging), disk),
            replicas=Replicas(worktrees, cells, rules, disk, config.max_repository_bytes),
            ledger=ledger,
            fences=fences,
            tokens=PageTokens.load(directory / "page.key"),
            state=config.state,
        )
        services = {
            "cove.git.v1.GitService": partial(add_GitServiceServicer_to_server, GitServicer(parts)),
        }
        async with serving(config, services, metrics=collected) as served:
            yield served


def mode(directory: Path) -> Mode:
    """How worktrees are made below `directory`: as overlays, if this host can mount them."""
    if cause := overlay.probe(directory):
        _log.warning("worktrees are whole checkouts here: %s", cause)
        return Mode.PLAIN
    return Mode(overlay.own_xattrs())


def in_use(records: Records, repositories: Repositories) -> Iterator[tuple[Path, str]]:
    """The commits whose checkouts worktrees stand on, with their repositories."""
    for record in records:
        if record.checkout and record.mode is not Mode.PLAIN:
            yield repositories.find(record.tenant, record.key).path, record.checkout


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def _owning(directory: Path) -> AsyncIterator[None]:
    """Have the directory alone. The lock of a process that was killed is free at once."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # A process that was told to stop may still be answering its last calls.
        deadline = asyncio.get_running_loop().time() + _LOCK_TIMEOUT
        while not _lock(descriptor):
            if asyncio.get_running_loop().time() > deadline:
                raise StartError(f"another process has {directory}")
            await asyncio.sleep(_LOCK_INTERVAL)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
