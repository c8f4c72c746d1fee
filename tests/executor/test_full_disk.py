"""A disk that is really full."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cove.executor.v1 import executor_pb2 as pb


def test_a_full_disk_loses_neither_the_exit_nor_the_truth() -> None:
    if os.getuid() != 0:
        pytest.skip("mounting a small disk needs root")
    with tempfile.TemporaryDirectory(prefix="cf", dir="/tmp") as folder:
        argv = ["unshare", "--mount", "--propagation", "private", sys.executable]
        argv += ["-m", "tests.executor.full_disk", folder]
        root = Path(__file__).parents[2]
        answer = subprocess.run(argv, cwd=root, stdout=subprocess.PIPE, timeout=40, check=True)
    seen = json.loads(answer.stdout)
    assert (seen["code"], seen["last"]) == (3, "exit")
    missing = sum(end - begin for begin, end, _ in seen["gaps"])
    assert missing > 0
    assert seen["chunks"] + missing == 20_000_004
    assert {why for *_, why in seen["gaps"]} == {pb.Gap.REASON_DISK_FULL}
    assert len(seen["gaps"]) < 5
    assert seen["refused"] == "RESOURCE_EXHAUSTED"
    assert seen["after"] == "x\n"
