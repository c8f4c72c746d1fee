"""What would make a registry that does nothing right is refused before it starts."""

import pytest

from servicekit.config import ConfigError
from services.registry.config import Config

SHARED = {"COVE_STATE": "/s", "COVE_RUNTIME": "/r"}


def test_every_bad_number_is_told_at_once() -> None:
    wrong = {
        "COVE_REGISTRY__HEARTBEAT": "0s",
        "COVE_REGISTRY__QUOTA_EXECUTIONS": str(2**63),
        "COVE_REGISTRY__QUOTA_DISK_BYTES": "9999999999GiB",
    }
    with pytest.raises(ConfigError) as caught:
        Config.from_env(SHARED | wrong)
    told = str(caught.value).splitlines()
    assert {line.partition(":")[0] for line in told} == set(wrong)


@pytest.mark.parametrize("name", ["HISTORY_REVISIONS", "QUOTA_WORKSPACES"])
def test_less_than_none_is_refused(name: str) -> None:
    """-1 is no limit for `cove quota set`: here it would be one that nobody keeps below."""
    with pytest.raises(ConfigError, match=f"COVE_REGISTRY__{name}: "):
        Config.from_env(SHARED | {f"COVE_REGISTRY__{name}": "-1"})


def test_zero_is_a_number_of_revisions_and_no_quota() -> None:
    nothing = {"COVE_REGISTRY__HISTORY_REVISIONS": "0", "COVE_REGISTRY__QUOTA_WORKSPACES": "0"}
    assert Config.from_env(SHARED | nothing).quota.workspaces == 0
