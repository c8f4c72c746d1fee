"""Settings that would not do what they seem to."""

import pytest

from servicekit.config import ConfigError
from services.provider.config import Config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("DISK_LIMIT", each) for each in ("90", "0", "-0.5", "nan")),
        *(("PROCESSES", each) for each in ("-1", "5000000")),
    ],
)
def test_what_no_sandbox_could_be_made_with_or_would_keep_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"COVE_PROVIDER__{name}: "):
        Config.from_env({f"COVE_PROVIDER__{name}": value})


def test_none_and_all_are_shares_and_numbers_too() -> None:
    env = {"COVE_PROVIDER__DISK_LIMIT": "1", "COVE_PROVIDER__PROCESSES": "0"}
    assert Config.from_env(env).processes == 0
