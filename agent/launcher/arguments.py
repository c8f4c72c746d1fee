"""The arguments of bwrap: what a sandbox is made of."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.launcher.host import Interpreter
from agent.protocol import SandboxSpec

LOCK: Final = 0
LISTENER: Final = 3
SECCOMP: Final = 9
STATUS: Final = 10
"""Descriptors that bwrap is started with. It closes in itself what is above 2 and not its own; so
the lock, which it must hold as long as the agent, is its standard input."""

_USR_LINKS: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC: Final = (
    "alternatives",
    "ca-certificates.conf",
    "debian_version",
    "fonts",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mailcap",
    "mime.types",
    "os-release",
    "perl",
    "pki",
    "profile",
    "protocols",
    "python3",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
"""Nothing in it names the host, its users, or its network."""
OWN_ETC: Final = ("group", "hosts", "nsswitch.conf", "passwd")
"""Made by the launcher, below `etc` of its library."""
_SCRATCH_BYTES: Final = 64 << 20
"""Of a folder that is not on disk."""

_BOOTSTRAP: Final = (
    "import sys; sys.path.insert(0, '/.cove/lib'); from agent.inside.main import main; "
    "sys.exit(main())"
)


def arguments(
    spec: SandboxSpec,
    library: Path,
    interpreter: Interpreter,
    ids: tuple[int, int],
    source: Callable[[str], str],
    *,
    counted: bool,
) -> list[str]:
    """Of bwrap, its own name left out. `source` tells by which path a file is bound.

    `counted`: a control group limits the number of processes.
    """
    made = ["--unshare-all", "--unshare-user", "--as-pid-1", "--new-session", "--cap-drop", "ALL"]
    made += ["--uid", str(ids[0]), "--gid", str(ids[1]), "--hostname", "cove", "--clearenv"]
    made += _system(library, source)
    made += ["--proc", "/proc", "--dev", "/dev"]
    made += ["--perms", "1777", "--size", str(spec.shm_bytes), "--tmpfs", "/dev/shm"]  # noqa: S108
    made += ["--remount-ro", "/dev"]
    for path, target in ((spec.workspace, "/workspace"), (spec.home, "/home/cove")):
        made += _folder(path, target, source)
    made += [*_folder(spec.tmp, "/tmp", source), "--dir", "/run"]  # noqa: S108
    made += ["--dir", "/var", "--symlink", "/tmp", "/var/tmp"]  # noqa: S108
    for mount in spec.mounts:
        verb = "--bind" if mount.writable else "--ro-bind"
        made += [verb, source(mount.source), mount.target]
    made += ["--ro-bind", source(str(library / "agent")), "/.cove/lib/agent"]
    if interpreter.bound:
        made += ["--ro-bind", source(str(interpreter.prefix)), str(interpreter.inside)]
        made += ["--setenv", "LD_LIBRARY_PATH", str(interpreter.inside / "lib")]
    made += ["--remount-ro", "/", "--chdir", "/"]
    made += ["--seccomp", str(SECCOMP), "--json-status-fd", str(STATUS), "--"]
    return made + _agent(spec, interpreter, counted=counted)


def _agent(spec: SandboxSpec, interpreter: Interpreter, *, counted: bool) -> list[str]:
    version = ".".join(map(str, sys.version_info[:3]))
    idle_ms = int(spec.idle_timeout_seconds * 1000)
    flags = ["-I", "-S", "-E", "-c", _BOOTSTRAP]
    return [
        str(interpreter.program),
        *flags,
        version,
        str(idle_ms),
        str(spec.limits.pids),
        str(int(counted)),
        spec.uid,
    ]


def _system(library: Path, source: Callable[[str], str]) -> list[str]:
    made = ["--ro-bind", "/usr", "/usr"]
    for name in _USR_LINKS:
        path = Path("/") / name
        if path.is_symlink():
            made += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            made += ["--ro-bind", str(path), str(path)]
    made += ["--dir", "/etc"]
    for name in _ETC:
        made += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name in OWN_ETC:
        made += ["--ro-bind", source(str(library / "etc" / name)), f"/etc/{name}"]
    return made


def _folder(path: str, target: str, source: Callable[[str], str]) -> list[str]:
    if path:
        return ["--bind", source(path), target]
    return ["--perms", "0700", "--size", str(_SCRATCH_BYTES), "--tmpfs", target]
