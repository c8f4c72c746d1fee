"""The drivers of a node, as its config names them."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from servicekit.config import StartError
from servicekit.disk import DiskGuard
from servicekit.errors import ServiceError
from services.provider.config import Config
from services.provider.driver import Driver
from services.provider.drivers.dagger.driver import DaggerDriver
from services.provider.drivers.local import Launched
from services.provider.drivers.making import Maker, OnStart, unheard
from services.provider.drivers.sandboxed import SandboxDriver
from services.provider.drivers.tenants import Places
from services.provider.drivers.ways_out import WaysOut

_log = logging.getLogger(__name__)


@asynccontextmanager
async def offered(
    config: Config, ways_out: WaysOut, on_start: OnStart = unheard
) -> AsyncIterator[list[Driver]]:
    """Those that can be asked for while the block runs, in the order of the config.

    What they stand on may come later, and come back. Raises StartError.
    """
    disk, tenants = DiskGuard(config.state, config.disk_limit), Places()
    async with AsyncExitStack() as stack:
        drivers: list[Driver] = []
        for name in config.drivers:
            if name == DaggerDriver.name:
                drivers.append(
                    DaggerDriver(
                        config.state,
                        config.runtime,
                        disk,
                        idle_timeout=config.idle_timeout,
                        tenants=tenants,
                        network=config.dagger_network,
                    )
                )
                continue
            drivers.append(
                SandboxDriver(
                    await _maker(name, config, stack, ways_out),
                    config.state,
                    disk,
                    binds=config.binds,
                    idle_timeout=config.idle_timeout,
                    processes=config.processes,
                    ways_out=ways_out,
                    tenants=tenants,
                    on_start=on_start,
                    unclaimed=name == config.drivers[0],
                )
            )
        yield drivers


async def _maker(name: str, config: Config, stack: AsyncExitStack, ways_out: WaysOut) -> Maker:
    if name == "local":
        return Launched(config.runtime / "launcher")
    try:
        # Its client is of an extra, which a node without the driver need not have.
        from services.provider.drivers.docker.maker import Contained, Settings
    except ImportError as error:
        raise StartError(
            f"the driver docker needs {error.name}: install cove-server[docker]"
        ) from None
    settings = Settings(
        socket=config.docker_socket,
        image=config.docker_image,
        runtime=config.docker_runtime,
        node=config.node,
        setup_age=config.docker_setup_age,
    )
    return await stack.enter_async_context(
        Contained.open(config.state, config.runtime, settings, ways_out)
    )


async def restored(drivers: list[Driver]) -> bool:
    """Have every driver restore the ways out of its sandboxes; whether all have them.

    What one stands on may be away: that is nothing to the others.
    """
    done = []
    for each in drivers:
        if not isinstance(each, SandboxDriver):
            continue
        try:
            done.append(await each.restore_ways_out())
        except ServiceError as error:
            _log.warning("no ways out yet: %s", error, extra={"fields": {"driver": each.name}})
            done.append(False)
    return all(done)
