"""Runs the launcher: `python -m agent.launcher --runtime DIR --state DIR --node ID`."""

import argparse
import ctypes
import fcntl
import os
import resource
import sys
from pathlib import Path
from typing import Final

from agent import PROTOCOL_VERSION, SANDBOX_UID
from agent.launcher import host
from agent.launcher.cgroups import Cgroups, group_name, places
from agent.launcher.earlier import Earlier
from agent.launcher.freezing import Freezing
from agent.launcher.sandboxes import Sandboxes
from agent.launcher.server import Server
from agent.launcher.start import OPEN_FILES, Parts
from agent.protocol import SPEC_VERSION, Facts, Mode

_PR_SET_CHILD_SUBREAPER: Final = 36
_LONGEST_SOCKET: Final = 100
"""The kernel takes paths of at most 107 bytes."""


def main() -> int:
    options = _options()
    mode = Mode.ROOT if os.getuid() == 0 else Mode.USER
    options.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(options.runtime / "launcher.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _fail(f"another launcher serves {options.runtime}")
    if len(bytes(options.runtime / "a" / ("x" * 16))) > _LONGEST_SOCKET:
        return _fail(f"{options.runtime} is too long for the path of a socket")
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, OPEN_FILES), most))  # 3 for each sandbox.
    bwrap = host.find_bwrap(options.bwrap)
    problem = host.problem(bwrap)
    ids = (SANDBOX_UID, SANDBOX_UID) if mode is Mode.ROOT else (os.getuid(), os.getgid())
    library = options.state / "launcher"
    if bwrap and not problem:
        library.mkdir(mode=0o700, parents=True, exist_ok=True)
        library = host.install(library, bwrap, *ids)
    groups = group_name(options.runtime)
    earlier = Earlier(options.state / "launcher" / "groups", options.runtime)
    parts = Parts(
        mode=mode,
        library=library,
        interpreter=None if problem else host.find_interpreter(),
        cgroups=Cgroups.probe(groups, earlier.note(places(groups))),
    )
    facts = Facts(
        version=PROTOCOL_VERSION,
        mode=mode,
        node=options.node,
        sandbox_uid=ids[0],
        bwrap=".".join(map(str, bwrap.version)) if bwrap else "",
        memory=parts.cgroups.enforces("memory"),
        pids=parts.cgroups.enforces("pids") or "rlimit",
        cpu=parts.cgroups.enforces("cpu"),
        problem=problem,
        spec=SPEC_VERSION,
        way_out=True,
        freeze=Freezing(parts.cgroups).method,
    )
    sandboxes = Sandboxes(options.runtime, parts)
    earlier.sweep()
    Server(
        options.runtime / "launcher", sandboxes, facts, stop_sandboxes=options.stop_sandboxes
    ).run()
    parts.cgroups.close()
    earlier.sweep()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m agent.launcher", description=__doc__)
    parser.add_argument("--runtime", type=_absolute, required=True, metavar="DIR", help="sockets")
    parser.add_argument("--state", type=_absolute, required=True, metavar="DIR", help="programs")
    parser.add_argument("--node", required=True, metavar="ID", help="name of this node")
    parser.add_argument("--bwrap", type=Path, help="bwrap to use; the newest is found otherwise")
    parser.add_argument(
        "--stop-sandboxes", action="store_true", help="SIGTERM ends the sandboxes too"
    )
    return parser.parse_args()


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _fail(message: str) -> int:
    print(message, file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    sys.exit(main())
