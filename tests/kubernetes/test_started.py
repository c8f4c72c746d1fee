"""The pods are run, as far as one machine without Kubernetes can: see kubelet.py.

With variables that a kubelet injects, by the probes, commands, rights and secrets of the manifests.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from agent.launcher.cgroups import group_name
from tests.kubernetes.kubelet import GROUPS, groups_of
from tests.kubernetes.manifests import ROOT, WAYS, rendered
from tests.registry.postgres import binaries

APART: Final = (
    *("unshare", "--net", "--mount", "--propagation", "private"),
    *("--pid", "--fork", "--kill-child", "--mount-proc"),
)
PROGRAMS: Final = ("nsenter", "openssl", "setpriv", "unshare")


def lacking() -> str:
    if os.geteuid() != 0:
        return "pods are run by root only"
    missing = [
        name for name in ("nsenter", "openssl", "setpriv", "unshare") if not shutil.which(name)
    ]
    if missing:
        return f"to run pods this machine lacks {', '.join(missing)}"
    if not [*Path("/usr/lib/postgresql").glob("*/bin/initdb")]:
        return "no PostgreSQL: install Debian's package postgresql"
    return ""


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS)
def test_pods_come_up_work_and_end(way: str, tmp_path: Path) -> None:
    if missing := lacking():
        pytest.skip(missing)
    rendered(way)  # Says so where nothing can render it,
    binaries()  # or there is no PostgreSQL.
    work = tmp_path / "work"
    work.mkdir()
    try:
        done = subprocess.run(
            [*APART, sys.executable, "-m", "tests.kubernetes.machine", way, str(work)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr[-5000:]}"
    finally:
        for group in (groups_of(work), GROUPS / group_name(Path("/run/cove/node"))):
            for each in sorted(group.glob("**/"), reverse=True):
                each.rmdir()
