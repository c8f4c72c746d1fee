"""Puts the registry together. Nothing else in it makes its own parts."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from cove.registry.v1.access_pb2_grpc import add_AccessServiceServicer_to_server
from cove.registry.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from cove.registry.v1.registry_pb2_grpc import add_RegistryServiceServicer_to_server
from servicekit.disk import DiskGuard
from servicekit.paging import PageTokens
from servicekit.server import Served, serving
from services.registry import token
from services.registry.config import Config
from services.registry.errors import StartError
from services.registry.face_access import AccessServicer, AuditServicer
from services.registry.metrics import Metrics
from services.registry.retention import Retention
from services.registry.rules import Rules
from services.registry.service import RegistryServicer
from services.registry.sqlite import SqliteStore
from services.registry.store import Clock, Store
from services.registry.writer import Observe, unobserved

_log = logging.getLogger(__name__)

_SWEEP_EVERY: Final = 60.0
_DISK_LIMIT: Final = 0.9


@asynccontextmanager
async def registry(config: Config, *, now: Clock | None = None) -> AsyncIterator[Served]:
    """Serves while the block runs; everything acknowledged is on the disk whenever it ends.

    `now` is the clock of the database unless given; that of this machine for a file.
    """
    await asyncio.to_thread(token.ensure, config.token_path)
    collected = CollectorRegistry()
    metrics = Metrics(collected)
    async with open_store(config, now, metrics.committed) as store:
        tokens = PageTokens(await store.secret("page_tokens"))
        rules = Rules(store.now, admit=partial(_admit, config))
        servicer = RegistryServicer(store, rules, tokens, config.heartbeat)
        access = AccessServicer(store.quotas, store.tokens, tokens, config.quota)
        audit = AuditServicer(store.trail, tokens)
        services = {
            "cove.registry.v1.RegistryService": partial(
                add_RegistryServiceServicer_to_server, servicer
            ),
            "cove.registry.v1.AccessService": partial(add_AccessServiceServicer_to_server, access),
            "cove.registry.v1.AuditService": partial(add_AuditServiceServicer_to_server, audit),
        }
        async with (
            _sweeping(store),
            metrics.of(store),
            serving(config, services, metrics=collected) as served,
        ):
            yield served


def open_store(
    config: Config, now: Clock | None, observe: Observe = unobserved
) -> AbstractAsyncContextManager[Store]:
    """The store that the config names. Raises `StartError`, also on entering."""
    retention = Retention(
        changes=config.history_revisions, changes_age=config.history, audit_age=config.audit_age
    )
    limits = config.quota
    if not config.database_url:
        return SqliteStore.open(
            config.database_path,
            now=now or time.time_ns,
            retention=retention,
            limits=limits,
            observe=observe,
        )
    try:
        from services.registry.postgres.store import PostgresStore
    except ImportError:
        raise StartError(
            "COVE_REGISTRY__DATABASE: PostgreSQL needs asyncpg: pip install 'cove-server[postgres]'"
        ) from None
    return PostgresStore.open(
        config.database_url, now=now, retention=retention, limits=limits, observe=observe
    )


def _admit(config: Config) -> None:
    """What room is left on the disk is for what makes room. Raises `DiskFull`."""
    if not config.database_url:
        DiskGuard(config.database_path.parent, _DISK_LIMIT).check()


@asynccontextmanager
async def _sweeping(store: Store) -> AsyncIterator[None]:
    """Throws away in the background what is kept no longer."""
    task = asyncio.create_task(_sweep(store))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _sweep(store: Store) -> None:
    while True:
        try:
            while await store.sweep():
                pass  # A bounded part at a time: others want to write too.
        except Exception:  # Whatever it is: later it may go, and nobody else throws anything away.
            _log.exception("cannot sweep")
        await asyncio.sleep(_SWEEP_EVERY)
