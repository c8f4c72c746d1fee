"""What drivers keep of environments, when it cannot be seen."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from servicekit.errors import Unavailable
from services.provider.driver import Spec, Worktree
from services.provider.drivers.records import Record, Records
from tests.agent.node import new_uid
from tests.agent.test_gone_clients import nothing_can_be_opened


def test_what_cannot_be_seen_now_is_not_taken_for_lost(tmp_path: Path) -> None:
    records = Records(tmp_path)
    record = Record(
        uid=new_uid(),
        tenant="t",
        spec=Spec(driver="local"),
        worktree=Worktree(tree="t"),
        provision_time=datetime.now(UTC),
    )
    records.write(record)
    with nothing_can_be_opened(), pytest.raises(Unavailable):
        records.read(record.uid)
    assert records.read(record.uid) == record
    assert records.read(new_uid()) is None
