"""Programs run as another user, on a machine where the interpreter is below a 0700 home."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent


def as_user(uid: int, argv: Sequence[str]) -> list[str]:
    """Argv that runs `argv` as that user. The caller is root.

    What the interpreter needs is made reachable in a mount namespace of its own, where a
    folder that is closed to others is empty but for it.
    """
    steps = ["mount --make-rprivate /"]
    needed = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), _ROOT.resolve()}
    outermost = [path for path in needed if not any(other in path.parents for other in needed)]
    closed = {path: _closed_above(path) for path in sorted(outermost)}
    holds = "$(mktemp -d)"
    for number, (path, above) in enumerate(closed.items()):
        if above:
            steps.append(f"H{number}={holds} && mount --bind {shlex.quote(str(path))} $H{number}")
    hidden = sorted({str(above) for above in closed.values() if above})
    steps += [f"mount -t tmpfs -o mode=0755 tmpfs {shlex.quote(above)}" for above in hidden]
    for number, (path, above) in enumerate(closed.items()):
        if above:
            where = shlex.quote(str(path))
            steps.append(f"mkdir -p {where} && mount --move $H{number} {where} && rmdir $H{number}")
    run = shlex.join([*_drop(uid), *argv])
    return ["unshare", "--mount", "sh", "-ec", "\n".join([*steps, f"exec {run}"])]


def entering(pid: int, uid: int, argv: Sequence[str]) -> list[str]:
    """Argv that runs `argv` as that user where the process `pid` is."""
    return ["nsenter", "--target", str(pid), "--mount", *_drop(uid), *argv]


def _drop(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]


def _closed_above(path: Path) -> Path | None:
    """The outermost folder above `path` that other users cannot pass; None: there is none."""
    above = [each for each in reversed(path.parents) if not each.stat().st_mode & 0o001]
    return above[0] if above else None
