"""Makes a sandbox and a cell of git, as the services do, and removes them."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from agent.egress.listener import available
from agent.launcher import cgroups, host
from agent.launcher_client import LauncherClient, LauncherError, PeerGone, PeerTooOld, ProbeFailed
from agent.protocol import Facts, Mode
from cove_server.doctor.finding import SYSTEM_PATH, Finding, fail, install, ok, warn
from cove_server.errors import CannotStart
from cove_server.launcher import Launcher
from cove_server.places import Places
from services.git.cell import Cells
from services.git.errors import CellUnavailable

_OLDEST_GIT: Final = (2, 31)
"""The first that reads its configuration from the environment alone."""
_TRIED_GIT: Final = (2, 39)
_SANDBOX: Final = "sandbox"


async def sandbox(places: Places, env: Mapping[str, str]) -> list[Finding]:
    """Start a sandbox and hear its agent: by the launcher that runs, or by one for a moment."""
    try:
        async with _launcher(places, env) as (client, whose):
            facts = await client.facts()
            try:
                await client.probe()
            except ProbeFailed as error:
                cause, _, remedy = str(error).partition(": ")
                return [fail(_SANDBOX, cause, remedy or str(error)), *_limits(facts)]
            found = ok(_SANDBOX, f"made {whose}: {_isolation(facts)}")
            return [found, *_limits(facts), _network()]
    except CannotStart as error:
        return [fail(_SANDBOX, str(error), error.remedy or "Its own words say why.")]
    except (LauncherError, PeerGone, PeerTooOld) as error:
        return [fail(_SANDBOX, str(error), "Start the suite anew: cove up")]


async def git() -> Finding:
    """Ask git for its version in a cell, as everything is asked of it."""
    if shutil.which("git", path=SYSTEM_PATH) is None:
        return fail("git", f"not there, in {SYSTEM_PATH}", install("git"))
    folder = Path(tempfile.mkdtemp(prefix="cove-"))
    try:
        async with Cells((folder / "repositories", folder / "worktrees")) as cells:
            version = await cells.probe()
    except CellUnavailable as error:
        cause = error.metadata.get("cause", "")
        return fail("git", f"{error.message}: {cause}".rstrip(": "), error.remedy)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    number = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if number < _OLDEST_GIT:
        oldest = ".".join(map(str, _OLDEST_GIT))
        return fail("git", f"{version} is older than {oldest}", install("git"))
    if number < _TRIED_GIT:
        return warn("git", f"{version} is older than what is tested", install("git"))
    return ok("git", f"{version}, in a cell")


@asynccontextmanager
async def _launcher(
    places: Places, env: Mapping[str, str]
) -> AsyncIterator[tuple[LauncherClient, str]]:
    with contextlib.suppress(PeerGone):
        async with LauncherClient.connect(places.socket("launcher")) as client:
            yield client, "by the launcher that runs"
            return
    folder = Path(tempfile.mkdtemp(prefix="cove-"))
    own = Places.choose({}, folder / "s", None)
    try:
        with own.held():
            launcher = Launcher(own, env)
            try:
                await launcher.start()
                async with LauncherClient.connect(own.socket("launcher")) as client:
                    yield client, "for a moment"
            finally:
                await launcher.stop(keep=False)
    finally:
        cgroups.remove_left(cgroups.group_name(own.runtime))
        for each in (own.runtime, folder):
            await asyncio.to_thread(shutil.rmtree, each, ignore_errors=True)


def _isolation(facts: Facts) -> str:
    whose = "by root, run as a user without rights" if facts.mode is Mode.ROOT else "by this user"
    return f"namespaces and seccomp, set up {whose}"


def _limits(facts: Facts) -> list[Finding]:
    methods = {"memory": facts.memory, "processes": facts.pids, "cpu": facts.cpu}
    found = ", ".join(f"{name} by {method or 'nothing'}" for name, method in methods.items())
    found += ", descriptors by rlimit, disk by looking at it"
    if facts.memory and facts.cpu and facts.pids != "rlimit":
        return [ok("limits", found)]
    return [warn("limits", found, _delegation())]


def _network() -> Finding:
    if available():
        return ok("network", "none, or a list of hosts through a proxy")
    return warn("network", "none: this kernel cannot tell whose a listener is", "Linux 5.14")


def _delegation() -> str:
    """How to get control groups."""
    if os.geteuid() != 0 and Path("/run/systemd/system").exists():
        return "systemd-run --user --scope --property=Delegate=yes cove up"
    if os.geteuid() != 0:
        return "sudo cove up"
    if host.in_container():
        return "docker run --cgroupns=host --volume /sys/fs/cgroup:/sys/fs/cgroup"
    return "mount -t cgroup2 none /sys/fs/cgroup"
