"""What functional execution can: no process outlives its command, so there is nothing to signal, to
freeze, or to limit."""

from typing import Final

from services.provider.capabilities import Capability
from services.provider.driver import Spec
from services.provider.errors import CapabilityMissing

CAN: Final = frozenset(
    {
        Capability.ATOMIC,
        Capability.SECRETS,
        Capability.IMAGE,
        Capability.SETUP,
        Capability.FORK_STATE,
        Capability.OUTLIVES_SERVICES,
    }
)
SAY: Final = (
    "Set COVE_PROVIDER__DAGGER_NETWORK to `none`, where the engine has no way out, or to `open`."
)
_LIMITS: Final = (
    ("memory_bytes", "memory_limit"),
    ("processes", "process_limit"),
    ("milli_cpus", "cpu_limit"),
    ("disk_bytes", "disk_limit"),
    ("open_files", "open_files_limit"),
)
_REMEDY: Final = "Leave it out, or name a driver that has it; GetCapabilities lists them."


def check(spec: Spec, network: str) -> None:
    """Raises CapabilityMissing. `network` is what the operator says that commands reach."""
    for field, capability in _LIMITS:
        if getattr(spec.limits, field):
            raise missing(f"an engine limits no {field}", capability)
    if spec.network.rules:
        raise missing("an engine does not keep to a list of hosts", "allow_list")
    if not network:
        raise CapabilityMissing(
            "an engine does not keep commands from its network", remedy=SAY, capability="none"
        )


def missing(message: str, capability: str) -> CapabilityMissing:
    return CapabilityMissing(message, remedy=_REMEDY, capability=capability)
