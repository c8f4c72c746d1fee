"""What a program does to its own workspace, and plain git beside it."""

import asyncio
from collections.abc import Callable

import pytest

from tests.attacks.git.attack import Attack
from tests.attacks.git.attacks_config import CONFIG
from tests.attacks.git.attacks_gitdir import BROKEN, LIES, REPLACED
from tests.attacks.git.attacks_nested import NESTED
from tests.attacks.git.naive import Naive
from tests.attacks.git.parts import Attacked

pytestmark = pytest.mark.asyncio(loop_scope="session")

ATTACKS = [*CONFIG, *NESTED, *REPLACED, *LIES, *BROKEN]
FINE = {
    "FAILED_PRECONDITION ERROR_REASON_NOTHING_TO_COMMIT",
    "FAILED_PRECONDITION ERROR_REASON_MERGE_CONFLICT",
    "NOT_FOUND ERROR_REASON_PROVENANCE_NOT_FOUND",
}
"""Failures that say how things are, whether there was an attack or not."""


def parameters() -> list[object]:
    marks = {True: [pytest.mark.long], False: []}
    return [pytest.param(each, id=each.name, marks=marks[each.long]) for each in ATTACKS]


@pytest.mark.parametrize("attack", parameters())
async def test_an_attack_hits_plain_git_and_not_cove(
    attack: Attack, attacked: Attacked, naive: Naive, record_property: Callable[[str, object], None]
) -> None:
    hit = await asyncio.to_thread(naive.hits, attack)
    async with attacked.workspace() as workspace:
        unplanted = await attacked.plant(workspace, attack.text)
        attacked.arena.dropped()
        hits, answers = await attacked.hits(workspace)
    row = [attack.name, " ".join(attack.covers), hit, "; ".join(hits), not unplanted]
    record_property("attack", row)
    assert not hits
    assert bool(hit) == attack.hits, hit
    failures = {
        f"{one.rpc}: {one.failure}" for one in answers if one.failure and one.failure not in FINE
    }
    assert attack.refused or not failures
    assert attacked.arena.dropped() == []  # Nor by what comes with the end of the workspace.
