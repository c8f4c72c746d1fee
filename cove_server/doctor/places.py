"""The directories of the suite, and the ports it would listen on."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from cove_server.doctor.finding import Finding, fail, ok, warn
from cove_server.errors import CannotStart
from cove_server.places import LONGEST_RUNTIME, Places, check_private
from cove_server.ports import reserved
from servicekit.disk import used
from services.executor.retention import punches

_FULL: Final = 0.9
"""Share of the disk at which the services take no new work."""
_LITTLE: Final = 1 << 30
_REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse.sshfs"})
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def state(places: Places) -> Iterator[Finding]:
    """The state directory and the disk it is on, or will be on."""
    try:
        there = _nearest(places.state)
        if there == places.state:
            check_private(there)
            yield ok("state", f"{there}, of this user alone")
        elif os.access(there, os.W_OK | os.X_OK):
            yield ok("state", f"{places.state}, not there yet, can be made")
        else:
            yield fail(
                "state", f"{places.state} cannot be made in {there}", "cove up --state DIRECTORY"
            )
        yield _disk(there)
        if os.access(there, os.W_OK | os.X_OK):
            yield _output(there)
    except CannotStart as error:
        yield fail("state", str(error), error.remedy or "cove up --state DIRECTORY")
    except OSError as error:
        yield fail("state", f"{places.state}: {error.strerror}", "cove up --state DIRECTORY")


def sockets(places: Places) -> Finding:
    length = len(os.fsencode(places.runtime))
    if length > LONGEST_RUNTIME:
        found = f"{places.runtime} has {length} bytes, {LONGEST_RUNTIME} are possible"
        return fail("sockets", found, "cove up --runtime /run/cove")
    return ok("sockets", f"{places.runtime}, {length} of {LONGEST_RUNTIME} bytes")


def ports(addresses: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the suite could listen where it would."""
    for name, address in addresses.items():
        try:
            with reserved(address):
                yield ok(f"port {name}", f"{address} is free")
        except CannotStart as error:
            yield warn(f"port {name}", str(error), f"cove up --{name} 127.0.0.1:0")


def _disk(folder: Path) -> Finding:
    kind, share = _file_system(folder), used(folder)
    free = shutil.disk_usage(folder).free
    found = f"{kind}, {free / (1 << 30):.1f} GiB free, {share:.0%} used"
    if share >= _FULL:
        remedy = "cove rm WORKSPACE, or cove up --state DIRECTORY on another disk"
        return fail("disk", f"{found}: new work is refused", remedy)
    if free < _LITTLE:
        return warn("disk", found, "cove up --state DIRECTORY on a larger disk")
    if kind in _REMOTE:
        return warn("disk", f"{found}: not on this host", "cove up --state DIRECTORY on a disk")
    if kind in _MEMORY:
        return warn("disk", f"{found}: gone at the next boot", "cove up --state DIRECTORY")
    return ok("disk", found)


def _output(folder: Path) -> Finding:
    if punches(folder):
        return ok("output", "the middle of a long one can be given back to the disk")
    return warn(
        "output",
        "this file system takes back no part of a file: of a long one all is kept",
        "cove up --state DIRECTORY on ext4, xfs, btrfs or tmpfs",
    )


def _file_system(folder: Path) -> str:
    """The kind of what is mounted where the folder is."""
    kinds: dict[Path, str] = {}
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split()
        point = fields[4].encode().decode("unicode_escape")
        kinds[Path(point)] = fields[fields.index("-") + 1]
    whole = folder.resolve()
    return next((kinds[each] for each in (whole, *whole.parents) if each in kinds), "unknown")


def _nearest(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.exists())
