"""What a driver cannot do is refused at create, with a remedy, and nothing is made."""

from typing import Any, Final

import pytest

from cove.registry.v1 import registry_pb2
from cove.status import CoveError, FailedPrecondition, InvalidArgument
from scripts.driver_table import BY_THE_MACHINE, CERTAIN
from services.provider.capabilities import Capability
from tests.drivers.standing import Stage

SPECS: Final[dict[str, dict[str, Any]]] = {
    "image": {"image": "some/image"},
    "setup": {"setup": ["true"]},
    "memory_limit": {"limits": registry_pb2.Limits(memory_bytes=64 << 20)},
    "process_limit": {"limits": registry_pb2.Limits(processes=64)},
    "cpu_limit": {"limits": registry_pb2.Limits(milli_cpus=500)},
    "disk_limit": {"limits": registry_pb2.Limits(disk_bytes=64 << 20)},
    "open_files_limit": {"limits": registry_pb2.Limits(open_files=64)},
    "allow_list": {"network": ["example.org:443"]},
}
"""What asks for a capability without naming it."""


async def test_it_can_what_the_page_of_drivers_says(stage: Stage) -> None:
    name = stage.standing.name
    assert CERTAIN[name] <= stage.can <= CERTAIN[name] | BY_THE_MACHINE[name]


@pytest.mark.parametrize("capability", sorted(Capability))
async def test_a_capability_is_there_or_refused(stage: Stage, capability: str) -> None:
    if capability in stage.can:
        async with await stage.create(requires=[capability]) as workspace:
            assert workspace.message.spec.required_capabilities == [capability]
        return
    await _refused(stage, requires=[capability])


@pytest.mark.parametrize("capability", sorted(SPECS))
async def test_what_needs_a_capability_is_refused_without_it(stage: Stage, capability: str) -> None:
    if capability in stage.can:
        pytest.skip(f"{stage.standing.name} has {capability}")
    await _refused(stage, **SPECS[capability])


async def test_a_capability_that_nobody_has_is_a_mistake(stage: Stage) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await stage.create(requires=["teleport"])
    assert "required_capabilities" in str(caught.value)


async def _refused(stage: Stage, **changes: Any) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await stage.create(id="refused", **changes)
    assert caught.value.reason == "ERROR_REASON_CAPABILITY_MISSING"
    assert caught.value.remedy
    with pytest.raises(CoveError):
        await stage.client.workspaces.get("refused")
