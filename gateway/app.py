"""Puts the gateway together. Nothing else in it makes its own parts."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import grpc

from cove.gateway.v1.gateway_pb2_grpc import (
    add_AccessServiceServicer_to_server,
    add_AuditServiceServicer_to_server,
    add_ExecutionServiceServicer_to_server,
    add_FileServiceServicer_to_server,
    add_SourceServiceServicer_to_server,
    add_WorkspaceServiceServicer_to_server,
)
from gateway.access import AccessServicer, AuditServicer
from gateway.activity import Activity, noting
from gateway.acts import Acts
from gateway.clock import Clock
from gateway.config import Config
from gateway.copies import Copies
from gateway.create import Creations
from gateway.deadlines import Deadlines
from gateway.delete import Deletions, Undeletions
from gateway.drivers import Drivers
from gateway.executions import ExecutionServicer
from gateway.files import FileServicer
from gateway.handles import Handles
from gateway.identity.acting import Acting
from gateway.identity.bearer import BearerAuthenticator
from gateway.identity.certificates import Handed
from gateway.identity.file import INSTALLATION, FileAuthenticator, NoAuthenticator
from gateway.identity.several import Several
from gateway.identity.trusted import ways
from gateway.life import Life
from gateway.limits import LifeLimits
from gateway.losses import Losses
from gateway.memory import following
from gateway.metrics import collected
from gateway.operations import Operations
from gateway.orphans import Orphans
from gateway.quotas import Quotas
from gateway.readiness import readiness, telling
from gateway.ready import Workspaces
from gateway.reconcile import Reconciler, reconciling
from gateway.records import Records
from gateway.replicas import Replicas
from gateway.rest.app import RestConfig, Tls, rest
from gateway.saga import Saga
from gateway.sources import SourceServicer
from gateway.still import Stills
from gateway.strays import Strays
from gateway.suspend import Suspensions
from gateway.teardown import Teardown
from gateway.tokens import LookUp, Tokens
from gateway.tools import Tools, tools
from gateway.trail import Trail
from gateway.updates import Updates
from gateway.witness import Witnesses
from gateway.workspaces import WorkspaceServicer
from servicekit.identity import Authenticator
from servicekit.proxies import Proxies
from servicekit.rates import Limiter, Rates
from servicekit.server import Served, serving
from servicekit.strangers import Guarded
from servicekit.tls import certificates_of


@asynccontextmanager
async def gateway(config: Config, *, clock: Clock | None = None) -> AsyncIterator[Served]:
    """Serves while the block runs. The tools need not be up yet."""
    file = FileAuthenticator(config.token_path)
    if not config.no_auth:
        file.check()
    handed = Handed()
    async with (
        ways(config, handed) as others,
        tools(config) as behind,
        Trail.open(behind.audit, config.runtime / "audit") as trail,
        BearerAuthenticator.open(LookUp(behind)) as bearer,
    ):
        asked = [(bearer.applies, bearer), *others]
        known = Guarded(Several(asked, file), config.stranger_rate)
        authenticator = Acting(NoAuthenticator() if config.no_auth else known)
        witnesses = Witnesses(trail, INSTALLATION)
        records = Records(behind.registry)
        deadlines = Deadlines(config.create_limit, config.operation_limit)
        async with (
            Operations.open(records, config.lease, deadlines) as operations,
            Replicas.open(behind, records, Teardown(behind)) as replicas,
        ):
            acts = Acts(trail, INSTALLATION)
            tokens = Tokens(behind, records, bearer.forget)
            parts = Parts(
                *(config, behind, records, operations, replicas, deadlines),
                *(clock or Clock(), acts, tokens),
            )
            ready = readiness(behind)
            async with (
                following(records.memory, records.follow),
                noting(parts.activity),
                serving(
                    config,
                    parts.services(),
                    authenticator=authenticator,
                    witnesses=witnesses,
                    admission=Limiter(_rates(config)),
                    proxies=Proxies(config.proxies),
                    metrics=collected(
                        operations=operations,
                        memory=records.memory,
                        trail=trail,
                        reconciler=parts.reconciler,
                        readiness=ready,
                        nodes=behind.nodes,
                    ),
                    ready=False,
                ) as served,
                telling(ready, served.health, parts.services()),
                reconciling(parts.reconciler, config.reconcile_interval),
                _http(config, served, authenticator, witnesses, handed) as complete,
            ):
                yield complete


class Parts:
    """What the gateway is made of, on one set of tools."""

    def __init__(
        self,
        config: Config,
        behind: Tools,
        records: Records,
        operations: Operations,
        replicas: Replicas,
        deadlines: Deadlines,
        clock: Clock,
        acts: Acts,
        tokens: Tokens,
    ) -> None:
        self.activity = Activity(records, clock, config.activity_interval)
        suspensions = Suspensions(behind, records, operations, self.activity, clock)
        teardown = Teardown(behind)
        stills = Stills(behind)
        copies = Copies(behind, records, stills)
        handles = Handles(records)
        drivers = Drivers(behind, handles)
        saga = Saga(behind, records, teardown, copies, drivers, config.progress_interval)
        deletions = Deletions(
            records, operations, teardown, replicas, config.undelete_window, clock
        )
        quotas = Quotas(behind)
        workspaces = Workspaces(behind, records, self.activity, suspensions, quotas, drivers)
        updates = Updates(behind, records, operations)
        self._workspaces = WorkspaceServicer(
            behind,
            records,
            Creations(records, operations, saga, quotas, drivers, behind.nodes),
            deletions,
            Undeletions(records, operations, saga),
            workspaces,
            copies,
            updates,
            suspensions,
            LifeLimits(
                shortest_idle=self.activity.shortest,
                interval=config.activity_interval,
                undelete_window=config.undelete_window,
            ),
        )
        self._executions = ExecutionServicer(behind, workspaces, handles)
        self._files = FileServicer(behind, workspaces, handles)
        self._sources = SourceServicer(behind, records, workspaces, stills, replicas)
        self._access = AccessServicer(quotas, tokens)
        self._audit = AuditServicer(behind)
        self.reconciler = Reconciler(
            records=records,
            operations=operations,
            saga=saga,
            deletions=deletions,
            orphans=Orphans(behind, teardown, acts, config.orphan_grace),
            losses=Losses(behind, records, saga, config.orphan_grace),
            updates=updates,
            deadlines=deadlines,
            life=Life(behind, records, suspensions, deletions, clock),
            clock=clock,
            nodes=behind.nodes,
            strays=Strays(behind.nodes, records, saga, replicas),
            replicas=replicas,
            acts=acts,
        )

    def services(self) -> dict[str, Callable[[grpc.aio.Server], None]]:
        return {
            "cove.gateway.v1.WorkspaceService": partial(
                add_WorkspaceServiceServicer_to_server, self._workspaces
            ),
            "cove.gateway.v1.ExecutionService": partial(
                add_ExecutionServiceServicer_to_server, self._executions
            ),
            "cove.gateway.v1.FileService": partial(add_FileServiceServicer_to_server, self._files),
            "cove.gateway.v1.SourceService": partial(
                add_SourceServiceServicer_to_server, self._sources
            ),
            "cove.gateway.v1.AccessService": partial(
                add_AccessServiceServicer_to_server, self._access
            ),
            "cove.gateway.v1.AuditService": partial(
                add_AuditServiceServicer_to_server, self._audit
            ),
        }


def _rates(config: Config) -> Rates:
    return Rates(
        read=config.read_rate,
        write=config.write_rate,
        heavy=config.heavy_rate,
        open_calls=config.open_calls,
        total_calls=config.total_calls,
    )


@asynccontextmanager
async def _http(
    config: Config,
    served: Served,
    authenticator: Authenticator,
    witnesses: Witnesses,
    handed: Handed,
) -> AsyncIterator[Served]:
    """HTTP is served through the gateway's own gRPC socket: one stack of checks decides."""
    if not config.http:
        yield served
        return
    settings = RestConfig(
        address=config.http,
        target=next(each for each in served.addresses if each.startswith("unix:")),
        grace=config.shutdown_grace,
        local_only=config.no_auth,
        console=config.console,
    )
    tls = Tls(certificates, handed) if (certificates := certificates_of(config)) else None
    proxies = Proxies(config.proxies)
    async with rest(settings, authenticator, witnesses.stranger, tls, proxies) as address:
        yield replace(served, http=address)
