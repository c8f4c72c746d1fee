"""A disk that is really full."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cove.executor.v1 import executor_pb2 as pb


def run(module: str) -> dict[str, Any]:
    """What a module prints that mounts a small disk, which goes with it."""
    if os.getuid() != 0:
        pytest.skip("mounting a small disk needs root")
    with tempfile.TemporaryDirectory(prefix="cf", dir="/tmp") as folder:
        argv = ["unshare", "--mount", "--propagation", "private", sys.executable]
        argv += ["-m", f"tests.executor.{module}", folder]
        root = Path(__file__).parents[2]
        answer = subprocess.run(argv, cwd=root, stdout=subprocess.PIPE, timeout=100, check=True)
    seen: dict[str, Any] = json.loads(answer.stdout)
    return seen


def test_a_full_disk_loses_neither_the_exit_nor_the_truth() -> None:
    seen = run("full_disk")
    assert (seen["code"], seen["last"]) == (3, "exit")
    missing = sum(end - begin for begin, end, _ in seen["gaps"])
    assert missing > 0
    assert seen["chunks"] + missing == 20_000_004
    assert {why for *_, why in seen["gaps"]} == {pb.Gap.REASON_DISK_FULL}
    assert len(seen["gaps"]) < 30  # Of some 300 chunks; a page is free now and then.
    assert seen["refused"] == "RESOURCE_EXHAUSTED"
    assert seen["after"] == "x\n"


def test_what_does_not_fit_is_unpacked_not_at_all() -> None:
    """Neither bytes nor names are left, and what was there before is as it was."""
    seen = run("small_disk")
    for how in ("new", "merged", "files"):
        told = seen[how]
        assert (told["code"], told["reason"]) == ("RESOURCE_EXHAUSTED", "NO_SPACE")
        assert told["metadata"]["path"] == told["metadata"]["entry"]
        assert told["metadata"]["path"].startswith("d/")
        assert told["remedy"]
        assert (told["left"], told["kept"]) == (["d", "d/first"], "kept\n")
    assert (seen["write"]["reason"], seen["write"]["left"]) == ("NO_SPACE", ["d"])
    assert seen["fits"] == 1
