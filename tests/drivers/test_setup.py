"""An image after scripts that were run on it: once for all who name the same, on every driver."""

import pytest

from cove.status import CoveError, FailedPrecondition
from tests.drivers.standing import Stage

RANDOM = "head -c 8 /dev/urandom | od -An -tx1 > /made"
"""Another each time that it is run; where only root may write."""


@pytest.fixture(autouse=True)
def able(stage: Stage) -> None:
    if "setup" not in stage.can:
        pytest.skip(f"{stage.standing.name} has no setup")


async def test_it_is_run_once_for_all_who_name_the_same(stage: Stage) -> None:
    same, other = [RANDOM], ["id -u > /who", RANDOM]
    made = []
    for setup in (same, same, other):
        async with await stage.create(setup=setup) as workspace:
            made.append((await workspace.execute("cat", "/made")).check().text)
            if setup is other:
                assert (await workspace.execute("cat", "/who")).check().text == "0\n"
                assert (await workspace.execute("id", "-u")).check().text == "60900\n"
    assert made[0] == made[1] != made[2]


async def test_one_that_fails_is_told_with_what_it_wrote(stage: Stage) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await stage.create(id="spoilt", setup=["true", "echo on purpose >&2; exit 3"])
    assert caught.value.reason == "ERROR_REASON_BUILD_FAILED"
    assert "on purpose" in caught.value.metadata["cause"]
    assert "setup" in caught.value.remedy
    with pytest.raises(CoveError):
        await stage.client.workspaces.get("spoilt")
