"""How much a directory takes."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from servicekit.taken import taken


def test_many_directories_are_all_counted(tmp_path: Path) -> None:
    for number in range(2500):
        folder = tmp_path / "top" / str(number)
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x")
    least = sum(each.stat().st_blocks * 512 for each in tmp_path.glob("top/*/file"))
    assert taken(tmp_path, ("top",)) >= least > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another")
def test_what_is_closed_is_left_out() -> None:
    """Of a service that is not root, as the owner of a worktree may close its root."""
    another = 65532
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        closed = Path(folder) / "closed"
        closed.mkdir(mode=0o000)
        os.chown(closed, another, another)
        os.seteuid(another)
        try:
            assert taken(Path(folder), ("closed",)) == 0
        finally:
            os.seteuid(0)
