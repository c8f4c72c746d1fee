"""What environments can do that are sandboxes with an agent in each."""

from datetime import timedelta
from typing import Final

from agent.protocol import Facts, Mode
from services.provider.capabilities import (
    Capabilities,
    Capability,
    Disk,
    Isolation,
    Method,
    Mounting,
)

BY_HOST: Final = frozenset(
    {
        Capability.FREEZE,
        Capability.MEMORY_LIMIT,
        Capability.CPU_LIMIT,
        Capability.ALLOW_LIST,
    }
)
"""What they can where the host, or the engine, lets them."""
WITH_IMAGES: Final = frozenset({Capability.IMAGE, Capability.SETUP, Capability.OUTLIVES_SERVICES})
"""What those can besides that are made from images."""
BY_THE_AGENT: Final = frozenset(
    {
        Capability.LIVE_OUTPUT,
        Capability.INPUT,
        Capability.TERMINAL,
        Capability.SIGNALS,
        Capability.BACKGROUND,
        Capability.PARALLEL,
        Capability.SECRETS,
        Capability.PORTS,
        Capability.GIT,
        Capability.PROCESS_LIMIT,
        Capability.DISK_LIMIT,
        Capability.OPEN_FILES_LIMIT,
    }
)


def of(
    facts: Facts,
    *,
    driver: str,
    can: frozenset[Capability],
    mounts: frozenset[Mounting],
    idle_timeout: timedelta,
    remedy: str,
) -> Capabilities:
    """With what facts tell, and besides `can`. With a remedy none can be made."""
    found = {
        Capability.FREEZE: facts.freeze,
        Capability.MEMORY_LIMIT: facts.memory,
        Capability.CPU_LIMIT: facts.cpu,
    }
    isolation = Isolation.ROOT if facts.mode is Mode.ROOT else Isolation.USER
    return Capabilities(
        driver=driver,
        node=facts.node,
        isolation=Isolation.NONE if remedy else isolation,
        memory=Method(facts.memory),
        processes=Method(facts.pids),
        cpu=Method(facts.cpu),
        idle_timeout=idle_timeout,
        disk=Disk.SOFT,
        open_files=Method.RLIMIT,
        can=BY_THE_AGENT | can | {name for name, method in found.items() if method},
        mounts=mounts,
        remedy=remedy,
    )
