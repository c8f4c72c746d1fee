"""Puts provider together. Nothing else in it makes its own parts."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from cove.provider.v1.provider_pb2_grpc import add_ProviderServiceServicer_to_server
from servicekit.disk import DiskGuard
from servicekit.fencing import Fences
from servicekit.ledger import Ledger
from servicekit.paging import PageTokens
from servicekit.server import Served, serving
from services.provider.config import Config
from services.provider.driver import Driver
from services.provider.drivers.dagger import DaggerDriver
from services.provider.drivers.local import LocalDriver
from services.provider.drivers.records import Records
from services.provider.drivers.ways_out import WaysOut
from services.provider.service import ProviderServicer


@asynccontextmanager
async def provider(config: Config) -> AsyncIterator[Served]:
    """Serves while the block runs. The launcher may come later, and come back."""
    directory = config.state / "provider"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ways_out = WaysOut(config.runtime / "egress", config.egress_networks)
    local = LocalDriver(
        config.state,
        config.runtime / "launcher",
        DiskGuard(config.state, config.disk_limit),
        binds=config.binds,
        idle_timeout=config.idle_timeout,
        processes=config.processes,
        ways_out=ways_out,
    )
    dagger = DaggerDriver(
        config.state,
        config.runtime,
        DiskGuard(config.state, config.disk_limit),
        idle_timeout=config.idle_timeout,
        network=config.dagger_network,
    )
    made: Mapping[str, Driver] = {local.name: local, dagger.name: dagger}
    drivers = {str(name): made[name] for name in config.drivers}
    async with (
        Ledger.open(directory / "ledger.db") as ledger,
        Fences.open(directory / "fences.db", Records(directory / "environments").has) as fences,
    ):
        tokens = PageTokens.load(directory / "page.key")
        servicer = ProviderServicer(drivers, config.drivers[0], ledger, fences, tokens)
        services = {
            "cove.provider.v1.ProviderService": partial(
                add_ProviderServiceServicer_to_server, servicer
            ),
        }
        async with ways_out.kept(local.restore_ways_out), serving(config, services) as served:
            yield served
