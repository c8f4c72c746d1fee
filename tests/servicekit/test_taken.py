"""How much a directory takes."""

from pathlib import Path

from servicekit.taken import taken


def test_many_directories_are_all_counted(tmp_path: Path) -> None:
    for number in range(2500):
        folder = tmp_path / "top" / str(number)
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x")
    least = sum(each.stat().st_blocks * 512 for each in tmp_path.glob("top/*/file"))
    assert taken(tmp_path, ("top",)) >= least > 0
