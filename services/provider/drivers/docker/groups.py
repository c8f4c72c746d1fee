"""Makes the control groups of a container what those of a sandbox are: in them a group for the
agent alone, so that others beside it can be those of single executions."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.launcher.cgroups import AGENT

_WANTED: Final = frozenset(("memory", "pids", "cpu", "cpuacct", "freezer"))


def settle(pid: int) -> None:
    """Move the only process of a container into a group of its own. Raises OSError."""
    for group, unified in _groups(pid):
        (group / AGENT).mkdir(exist_ok=True)
        (group / AGENT / "cgroup.procs").write_text(str(pid))
        if unified:
            available = frozenset((group / "cgroup.controllers").read_text().split())
            for name in sorted(available & _WANTED):
                with suppress(OSError):  # What is not delegated, is limited for all together.
                    (group / "cgroup.subtree_control").write_text(f"+{name}")


def problem() -> str:
    """Why groups cannot be made here, with the remedy; empty when they can."""
    try:
        places = [place for place, _ in _groups(os.getpid())]
    except OSError as error:
        return f"the control groups of this machine cannot be seen: {error}"
    if not places or not all(os.access(place, os.W_OK) for place in places):
        return (
            "the control groups of this machine are not ours to write: run provider as root, "
            "with /sys/fs/cgroup writable and the process ids of the machine (`pid: host`)"
        )
    return ""


def _groups(pid: int) -> Iterator[tuple[Path, bool]]:
    """Where a process is, in each hierarchy that is of use; and whether that is of version 2."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        controllers = frozenset(filter(None, names.split(",")))
        if controllers and not controllers & _WANTED:
            continue
        for fields in mounts:
            kind, options = fields[fields.index("-") + 1], set(fields[-1].split(","))
            fits = controllers <= options and kind == "cgroup" if names else kind == "cgroup2"
            inside = os.path.relpath(path, fields[3])
            if fits and not inside.startswith(".."):
                yield Path(fields[4]) / inside, not names
                break
