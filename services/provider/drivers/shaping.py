"""What a sandbox is made like, of what an environment was provisioned with."""

from collections.abc import Iterable
from pathlib import Path

from agent.protocol import Facts, Mount, SandboxSpec
from agent.protocol import Limits as SandboxLimits
from services.provider.driver import Limits
from services.provider.drivers.places import Placed
from services.provider.drivers.records import Record
from services.provider.errors import CapabilityMissing


def sandbox(
    record: Record, folder: Path, placed: Placed, binds: Iterable[Path], idle_timeout: float
) -> SandboxSpec:
    """`folder` has its home and tmp; `binds` are seen read-only where they are, if they are."""
    shown = [Mount(source=str(path), target=str(path)) for path in binds if path.exists()]
    limits: Limits = record.spec.limits
    return SandboxSpec(
        uid=record.uid,
        worktree=placed.tree,
        overlay=placed.overlay,
        lock=placed.lock,
        home=str(folder / "home"),
        tmp=str(folder / "tmp"),
        mounts=(*shown, *placed.mounts),
        limits=SandboxLimits(
            memory_bytes=limits.memory_bytes,
            pids=limits.processes,
            cpu_millis=limits.milli_cpus,
        ),
        idle_timeout_seconds=idle_timeout,
    )


def check_limits(limits: Limits, facts: Facts) -> None:
    """Raises CapabilityMissing for what cannot be limited here."""
    asked = {"memory": limits.memory_bytes, "cpu": limits.milli_cpus}
    for name, method in (("memory", facts.memory), ("cpu", facts.cpu)):
        if asked[name] and not method:
            raise CapabilityMissing(
                f"this node cannot limit {name}",
                remedy="Leave the limit out, or run the launcher as root or in a delegated "
                "control group.",
                capability=name,
            )
