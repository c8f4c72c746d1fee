"""What would make a registry that does nothing right is refused before it starts."""

import pytest

from servicekit.config import ConfigError
from services.registry.config import Config

SHARED = {"COVE_STATE": "/s", "COVE_RUNTIME": "/r"}


def test_every_bad_number_is_told_at_once() -> None:
    """-1 is no limit for `cove quota set`: here it would be one that nobody keeps below."""
    wrong = {
        "COVE_REGISTRY__HEARTBEAT": "0s",
        "COVE_REGISTRY__HISTORY_REVISIONS": "-1",
        "COVE_REGISTRY__QUOTA_WORKSPACES": "-1",
        "COVE_REGISTRY__QUOTA_ACTIVE_ENVIRONMENTS": "-2",
        "COVE_REGISTRY__QUOTA_EXECUTIONS": str(2**63),
        "COVE_REGISTRY__QUOTA_DISK_BYTES": "9999999999GiB",
    }
    with pytest.raises(ConfigError) as caught:
        Config.from_env(SHARED | wrong)
    told = str(caught.value).splitlines()
    assert {line.partition(":")[0] for line in told} == set(wrong)
    assert "COVE_REGISTRY__QUOTA_WORKSPACES: not from 0, which is any number, to " in str(
        caught.value
    )


def test_zero_is_a_number_of_revisions_and_no_quota() -> None:
    nothing = {"COVE_REGISTRY__HISTORY_REVISIONS": "0", "COVE_REGISTRY__QUOTA_WORKSPACES": "0"}
    assert Config.from_env(SHARED | nothing).quota.workspaces == 0
