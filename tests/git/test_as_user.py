"""The same, as an ordinary user: cells then stand on user namespaces alone."""

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
TESTS = (
    "fuzz/test_fuzz.py::test_worktrees_look_as_stock_git_sees_them",
    "test_attacks.py",
    "test_cell.py",
    "test_checkouts.py",
    "test_collisions.py::test_each_pair_that_collides_is_told_with_its_paths",
    "test_commit.py",
    "test_merge.py::test_a_merge_commit_has_the_target_and_the_source_as_parents",
    "test_merge.py::test_a_rebase_repeats_each_commit_as_git_does",
    "test_push.py::test_push_to_a_repository_of_this_machine",
    "test_ssh.py",
    "test_foresight.py::test_work_collides_as_git_merges_it",
    "test_inside.py",
    "test_maintenance.py::test_readers_go_on_while_packs_are_replaced",
    "test_maintenance.py::test_what_nothing_names_goes_only_when_no_worktree_is_left",
    "test_partial.py::test_a_shallow_one_is_worked_in_and_pushed",
    "test_partial.py::test_old_contents_are_left_out",
    "test_warm.py",
)


def as_nobody(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [ROOT, ROOT / "sdk" / "src", sysconfig.get_path("purelib")]
    return subprocess.run(
        [python, *arguments],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": ":".join(map(str, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def python() -> str:
    """An interpreter that an ordinary user may run, and that finds what the tests need."""
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user already")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}"):
        try:
            found = as_nobody(candidate, "-c", "import grpc, pytest, subprocess")
        except OSError:
            continue
        if found.returncode == 0:
            return candidate
    pytest.skip("no interpreter here may be run by an ordinary user")


@pytest.fixture
def own_directory() -> Iterator[Path]:
    """Outside of pytest's, which only its user may enter."""
    with tempfile.TemporaryDirectory(prefix="cove") as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_git_does_the_same_as_an_ordinary_user(python: str, own_directory: Path) -> None:
    result = as_nobody(
        python,
        "-m",
        "pytest",
        f"--rootdir={ROOT}",
        f"--config-file={ROOT / 'pyproject.toml'}",
        "--quiet",
        "-pno:cacheprovider",
        "-knot race and not plain",  # Seconds each, or the same as root does.
        f"--basetemp={own_directory}/t",
        *(str(ROOT / "tests" / "git" / name) for name in TESTS),
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
