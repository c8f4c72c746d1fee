"""Whose a file with a secret may be."""

import os
from pathlib import Path

import pytest

from servicekit.secrets import open_to_others

ANOTHER = 65532


@pytest.mark.parametrize(
    ("owner", "mode", "to_root", "to_another"),
    [
        (0, 0o400, False, False),
        (0, 0o440, True, False),  # As a kubelet mounts it for who is not root.
        (0, 0o460, True, True),
        (0, 0o444, True, True),
        (ANOTHER, 0o600, False, False),
        (ANOTHER, 0o640, True, True),
    ],
)
def test_only_root_may_let_a_group_read(
    tmp_path: Path, owner: int, mode: int, to_root: bool, to_another: bool
) -> None:
    if os.geteuid() != 0:
        pytest.skip("files of other users are made by root only")
    file = tmp_path / "token"
    file.touch()
    os.chown(file, owner, ANOTHER)
    file.chmod(mode)
    found = file.stat()
    assert open_to_others(found) is to_root
    os.seteuid(ANOTHER)
    try:
        told = open_to_others(found)
    finally:
        os.seteuid(0)
    assert told is to_another
