"""Puts provider together. Nothing else in it makes its own parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from prometheus_client import CollectorRegistry

from cove.provider.v1.provider_pb2_grpc import add_ProviderServiceServicer_to_server
from servicekit.fencing import Fences
from servicekit.ledger import Ledger
from servicekit.metrics import Timer, gauge
from servicekit.paging import PageTokens
from servicekit.server import Served, serving
from services.provider.config import Config
from services.provider.drivers.records import Records
from services.provider.drivers.ways_out import WaysOut
from services.provider.offering import offered, restored
from services.provider.service import ProviderServicer


@asynccontextmanager
async def provider(config: Config) -> AsyncIterator[Served]:
    """Serves while the block runs. The launcher may come later, and come back."""
    directory = config.state / "provider"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ways_out = WaysOut(config.runtime / "egress", config.egress_networks)
    records = Records(directory / "environments")
    collected = CollectorRegistry()
    starts = Timer(
        collected, "cove_sandbox_start_seconds", "How long starts of sandboxes took.", "driver"
    )
    gauge(
        collected,
        "cove_provisioned_environments",
        "Environments on this node, also those in which nothing runs.",
        records.count,
    )
    async with (
        offered(config, ways_out, starts.observe) as drivers,
        Ledger.open(directory / "ledger.db") as ledger,
        Fences.open(directory / "fences.db", records.has) as fences,
    ):
        tokens = PageTokens.load(directory / "page.key")
        servicer = ProviderServicer(
            {each.name: each for each in drivers},
            drivers[0].name,
            ledger,
            fences,
            tokens,
            records.count,
        )
        services = {
            "cove.provider.v1.ProviderService": partial(
                add_ProviderServiceServicer_to_server, servicer
            ),
        }
        async with (
            ways_out.kept(partial(restored, drivers)),
            serving(config, services, metrics=collected) as served,
        ):
            yield served
