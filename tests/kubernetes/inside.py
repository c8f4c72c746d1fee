"""The start of a container: its mounts, then its rights, then its program.

Run as root in new namespaces of mounts and control groups, with a `Plan` as JSON. What an image
has is taken from this machine: its system, this checkout, and the Python that runs the tests.
"""

import ctypes
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
_BIND, _REC, _REMOUNT, _READ_ONLY = 0x1000, 0x4000, 0x20, 0x1
_MOVE, _DETACH = 0x2000, 2
_OWN: Final = ("/run", "/var/lib", "/opt")
"""Folders of the image in which something is mounted, or made by its Dockerfile."""
GROUPS: Final = "/sys/fs/cgroup"
_UNIFIED: Final = f"{GROUPS}/unified"
PATH: Final = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    argv: list[str]
    env: dict[str, str]
    mounts: list[tuple[str, str, bool]]
    """Folder of this machine, path in the container, whether it is read-only."""
    hosts: str
    healthy: str
    """The health check of the image."""
    user: int
    group: int
    groups: list[int]
    capabilities: list[str]


def rights(plan: Plan) -> list[str]:
    """Before a command: no more than these."""
    kept = ",".join(f"+{each.lower()}" for each in plan.capabilities)
    groups = ",".join(map(str, plan.groups))
    return [
        "setpriv",
        *(f"--reuid={plan.user}", f"--regid={plan.group}"),
        f"--groups={groups}" if groups else "--clear-groups",
        f"--bounding-set=-all{',' * bool(kept)}{kept}",
        *("--inh-caps=-all", "--no-new-privs", "--"),
    ]


def main(text: str) -> None:
    plan = Plan(**json.loads(text))
    _lay(plan)
    os.chdir("/")
    argv = [*rights(plan), *plan.argv]
    os.execvpe(argv[0], argv, {"PATH": PATH, "PYTHONDONTWRITEBYTECODE": "1", **plan.env})


def _lay(plan: Plan) -> None:
    _mount("proc", "/proc", "proc")
    sources = [os.open(source, os.O_PATH) for source, _, _ in plan.mounts]
    image = {path: os.open(path, os.O_PATH) for path in (str(ROOT), sys.prefix, sys.base_prefix)}
    # Others than root may not pass through the homes in which these may be.
    tops = {f"/{Path(path).parts[1]}" for path in image} - {"/usr", "/opt"} | {"/tmp"}
    for each in (*_OWN, *tops):
        _mount("tmpfs", each, "tmpfs", "mode=755")
    for folder in ("/opt/cove", "/run/visible"):
        Path(folder).mkdir(parents=True)
    Path("/opt/cove/healthy.py").write_text(plan.healthy)
    Path("/run/hosts").write_text(plan.hosts)
    _bind("/run/hosts", "/etc/hosts", read_only=True)
    for handle, (_, target, read_only) in zip(sources, plan.mounts, strict=True):
        if target == GROUPS:
            _lay_groups()
            continue
        Path(target).mkdir(parents=True, exist_ok=True)
        _bind(f"/proc/self/fd/{handle}", target, read_only=read_only)
    for path, handle in image.items():
        if not Path(path).is_relative_to("/usr"):
            Path(path).mkdir(parents=True, exist_ok=True)
            _bind(f"/proc/self/fd/{handle}", path, read_only=True)
    for each in {"/", *_OWN, *tops}.difference(target for _, target, _ in plan.mounts):
        _mount(None, each, None, flags=_REMOUNT | _BIND | _READ_ONLY)
    for handle in (*sources, *image.values()):
        os.close(handle)


def _lay_groups() -> None:
    """As on a host that has nothing but version 2."""
    if not Path(_UNIFIED).is_dir():
        return
    Path("/run/groups").mkdir()
    _mount(_UNIFIED, "/run/groups", None, flags=_BIND)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.umount2(GROUPS.encode(), _DETACH) == 0
    _mount("/run/groups", GROUPS, None, flags=_MOVE)


def _bind(source: str, target: str, *, read_only: bool = False) -> None:
    _mount(source, target, None, flags=_BIND | _REC)
    if read_only:
        _mount(None, target, None, flags=_REMOUNT | _BIND | _READ_ONLY)


def _mount(
    source: str | None, target: str, kind: str | None, data: str = "", flags: int = 0
) -> None:
    def encoded(text: str | None) -> Any:
        return os.fsencode(text) if text is not None else None

    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.mount(
        encoded(source), encoded(target), encoded(kind), ctypes.c_ulong(flags), encoded(data)
    )
    if failed:
        error = ctypes.get_errno()
        raise OSError(error, f"mount {source} at {target}: {os.strerror(error)}")


if __name__ == "__main__":
    main(sys.argv[1])
