"""What this machine must have, and what the containers are made from."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
MIRROR: Final = os.environ.get("DEBIAN_MIRROR") or "http://deb.debian.org/debian"
_RELEASE: Final = "bookworm"
_PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")
_PROGRAMS: Final = ("dockerd", "docker", "debootstrap", "ip", "iptables", "git", "tar")
_CONTEXT: Final = (
    *("agent", "cove_server", "deploy", "engines", "gateway", "sdk", "servicekit", "services"),
)
_FILES: Final = (
    ".dockerignore",
    "Dockerfile",
    "LICENSE",
    "docker-compose.docker.yml",
    "docker-compose.yml",
    "pyproject.toml",
    "requirements-dagger.lock",
    "requirements-server.lock",
)
_AUTHORITIES: Final = "etc/ssl/certs/ca-certificates.crt"
_NOT_OURS: Final = shutil.ignore_patterns("__pycache__", "secrets", "*.whl")
_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18


class Cannot(Exception):
    """This machine cannot run containers; the message says why."""


def say(text: str) -> None:
    """Tell whoever watches how far it is."""
    sys.stdout.write(f"-- {text}\n")
    sys.stdout.flush()


def require(compose: str) -> None:
    """Raises `Cannot` where something is missing that no test can bring along."""
    require_root(*_PROGRAMS, compose)


def require_root(*programs: str) -> None:
    """Raises `Cannot` where we are not root, or one of the programs is missing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Cannot("a Docker daemon of our own needs root on Linux")
    if missing := [name for name in programs if not shutil.which(name)]:
        raise Cannot(
            f"{', '.join(missing)} not found: "
            "apt-get install docker.io docker-compose debootstrap iproute2 iptables"
        )


def isolate() -> None:
    """Leave the host's network and mounts, so that nothing of the daemon's stays behind.

    Bridges, addresses and packet filter rules go with the last process of the namespace. From
    here on nothing outside this machine can be reached. Raises `Cannot`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) != 0:
        raise Cannot(f"no namespaces for a daemon: {os.strerror(ctypes.get_errno())}")
    if libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None) != 0:
        raise Cannot(f"mounts cannot be made private: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def make_base(folder: Path, packages: Sequence[str] = _PACKAGES) -> None:
    """A Debian, by default with what the Dockerfile asks of a base, from a mirror or COVE_BASE_TAR.

    Raises `Cannot`.
    """
    folder.mkdir()
    if given := os.environ.get("COVE_BASE_TAR"):
        say(f"unpacking {given}")
        subprocess.run(["tar", "-C", folder, "-xf", given], check=True)
    else:
        _reach(f"{MIRROR}/dists/{_RELEASE}/Release")
        say("making a base with debootstrap (a minute or two)")
        include = [f"--include={','.join(packages)}"] if packages else []
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", *include, _RELEASE, folder, MIRROR],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if made.returncode:
            raise Cannot(f"debootstrap failed:\n{made.stdout[-3000:]}")
    shutil.copyfile("/etc/resolv.conf", folder / "etc/resolv.conf")
    # A proxy on the way out may have an authority of its own, which this host then knows.
    if (own := Path("/", _AUTHORITIES)).exists() and (folder / _AUTHORITIES).parent.is_dir():
        shutil.copyfile(own, folder / _AUTHORITIES)


def pack_bases(base: Path, folder: Path) -> dict[str, Path]:
    """Archives of the base for `docker import`, by the name of the variable that names them.

    With git for the launcher, and with ssh too for git. Raises `Cannot`.
    """
    folder.mkdir()
    added = {"COVE_BASE": "", "COVE_LAUNCHER_BASE": "git", "COVE_GIT_BASE": "openssh-client"}
    packed = {name: folder / f"{name}.tar" for name in added}
    for name, package in added.items():
        if package:
            install = f"apt-get install -y --no-install-recommends {package}"
            _inside(base, f"apt-get update && {install}")
        _inside(base, "apt-get clean")
        subprocess.run(["tar", "-C", base, "-cf", packed[name], "."], check=True)
    return packed


def make_context(folder: Path, base: Path) -> None:
    """What the images are built from: this checkout, secrets, and the wheels that the lock names.

    They are fetched by the base's own pip, so that they fit its Python. Raises `Cannot`.
    """
    folder.mkdir()
    for name in _CONTEXT:
        shutil.copytree(ROOT / name, folder / name, ignore=_NOT_OURS)
    for name in _FILES:
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "tests/compose/double", folder / "double")
    _make_secrets(folder)
    say("fetching wheels")
    work = base / "root/wheels"
    work.mkdir()
    fetch = (
        "pip/bin/pip download -q --no-cache-dir --disable-pip-version-check --require-hashes"
        " --only-binary :all: -r"
    )
    for name in ("requirements-server.lock", "requirements-dagger.lock"):
        shutil.copyfile(folder / name, work / name)
        _inside(base, f"cd /root/wheels && python3 -m venv pip && {fetch} {name}")
    for wheel in work.glob("*.whl"):
        shutil.move(wheel, folder / "deploy/wheels")
    shutil.rmtree(work)


def _make_secrets(folder: Path) -> None:
    """By the words of the documentation, which so are known to work."""
    text = (ROOT / "docs/compose.md").read_text("utf-8")
    commands = re.findall(r"^.*\bdeploy/secrets\b.*urandom.*$", text, re.MULTILINE)
    assert len(commands) == 1, commands
    subprocess.run(["sh", "-c", commands[0]], cwd=folder, check=True)


def _inside(base: Path, script: str) -> None:
    """Run a script in the base, with this machine's network. Raises `Cannot` when it fails."""
    kept = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    env |= {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PIP_CERT": f"/{_AUTHORITIES}"}
    env |= {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    done = subprocess.run(
        ["chroot", base, "sh", "-c", script], env=env, capture_output=True, text=True
    )
    if done.returncode:
        raise Cannot(f"`{script}` failed:\n{(done.stdout + done.stderr).strip()[-1500:]}")


def _reach(address: str) -> None:
    try:
        with urllib.request.urlopen(address, timeout=30):
            pass
    except (urllib.error.URLError, OSError) as error:
        raise Cannot(f"no Debian mirror at {address}: {error}") from None
