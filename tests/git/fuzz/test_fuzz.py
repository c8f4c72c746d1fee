"""Worktrees at random, against stock git."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from services.git.record import Mode
from tests.git.fuzz.machine import Worktree
from tests.git.fuzz.service import CannotMountError, Service
from tests.git.parts import run_git

STEPS = 15
FEW = 3
"""Worktrees in `make test`."""
MANY = int(os.environ.get("COVE_FUZZ_WORKTREES", "170"))
"""In `make test-long`; each of up to `STEPS` rounds."""
_LEAST = 8
"""Rounds of each, on average; they are some 12, as many as chance makes them."""


def make_origin(path: Path) -> Path:
    """Two branches, with a little of everything."""
    path.mkdir()
    run_git(path, "init", "-q", "-b", "main")
    files = {b"a/b/c": 1, b"a/x.o": 2, b"b/c": 3, b"lib/a": 4, b"n\nl": 5, b"c": 6, b"\xff\xfe": 7}
    for name, number in files.items():
        target = path / os.fsdecode(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"line {line}\n" for line in range(number, number + 12)))
    (path / "-x").symlink_to("nowhere")
    (path / "d e").write_text("#!/bin/sh\n")
    (path / "d e").chmod(0o755)
    (path / "b" / ".gitignore").write_text("*.o\n")
    run_git(path, "add", "-A")
    run_git(path, "commit", "-qm", "One")
    for branch in ("other", "main"):
        run_git(path, "checkout", "-qB", branch)
        (path / f"from {branch}").write_text(f"{branch}\n" * 3)
        (path / "c").write_text(f"line {branch}\n")
        run_git(path, "add", "-A")
        run_git(path, "commit", "-qm", "Two")
    return path


@pytest.fixture(params=["overlay", "plain"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[type[Worktree]]:
    """The rules, with a service of that mode."""
    mode = Mode.PLAIN if request.param == "plain" else None
    with Service(tmp_path / "state", mode) as service:
        origin = make_origin(tmp_path / "origin")
        yield type("Here", (Worktree,), {"service": service, "origin": origin, "rounds": 0})


def run(machine: type[Worktree], worktrees: int, *, fixed: bool) -> None:
    chosen = settings(
        max_examples=worktrees,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=fixed,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    try:
        run_state_machine_as_test(machine, settings=chosen)
    except CannotMountError as error:
        pytest.skip(f"no overlay here: {error}")
    print(f"{machine.rounds} rounds")  # noqa: T201


def test_worktrees_look_as_stock_git_sees_them(machine: type[Worktree]) -> None:
    run(machine, FEW, fixed=True)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_worktrees_look_as_stock_git_sees_them(machine: type[Worktree]) -> None:
    run(machine, MANY, fixed=False)
    assert machine.rounds >= MANY * _LEAST
