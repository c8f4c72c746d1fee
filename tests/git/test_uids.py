"""Which uids tenants get, and what keeps them from being shared."""

import os
from pathlib import Path

import pytest

from servicekit.config import StartError
from servicekit.errors import ResourceExhausted
from services.git.uids import Uids

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives sandboxes other uids")


def test_uids_are_given_out_once_and_stay(tmp_path: Path) -> None:
    uids = Uids.open(tmp_path, "2000-2002")
    assert uids
    assert [uids.of(each) for each in ("a", "b", "a")] == [2000, 2001, 2000]
    again = Uids.open(tmp_path, "1990-2002")
    assert again
    assert [again.of(each) for each in ("b", "c", "a")] == [2001, 2002, 2000]
    with pytest.raises(ResourceExhausted):
        again.of("d")


@pytest.mark.parametrize("text", ["2000", "a-b", "10-20", "2002-2000", "60000-61000", "0-5000"])
def test_ranges_that_cannot_be(tmp_path: Path, text: str) -> None:
    with pytest.raises(StartError, match="SANDBOX_UIDS"):
        Uids.open(tmp_path, text)


def test_what_was_given_out_cannot_be_forgotten(tmp_path: Path) -> None:
    uids = Uids.open(tmp_path, "2000-2002")
    assert uids
    uids.of("a")
    with pytest.raises(StartError, match="set COVE_PROVIDER__SANDBOX_UIDS"):
        Uids.open(tmp_path, "")
    with pytest.raises(StartError, match="2000 was given out"):
        Uids.open(tmp_path, "3000-4000")
    (tmp_path / "uids.json").write_text("{")
    with pytest.raises(StartError, match="cannot be read"):
        Uids.open(tmp_path, "2000-2002")


def test_a_node_in_use_does_not_change_over(tmp_path: Path) -> None:
    (tmp_path / "worktrees" / "x").mkdir(parents=True)
    with pytest.raises(StartError, match="of before"):
        Uids.open(tmp_path, "2000-2002")
