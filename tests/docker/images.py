"""Root file systems for containers, and how an engine gets them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.compose.machine import Cannot, make_base

BARE: Final = "cove-test/bare"
"""Busybox and nothing else: no Python, no libc, no list of users."""
DEBIAN: Final = "cove-test/debian"
"""Of debootstrap, or what COVE_BASE_TAR has."""


def make_bare(folder: Path, *files: str) -> Path:
    """A root with busybox, and with empty `files`. Raises `Cannot`."""
    (folder / "bin").mkdir(parents=True)
    shutil.copyfile(_busybox(folder.parent), folder / "bin/busybox")
    (folder / "bin/busybox").chmod(0o755)
    for name in _told(folder / "bin/busybox", "--list").decode().split():
        if name != "busybox":
            (folder / "bin" / name).symlink_to("busybox")
    for name in files:
        (folder / name).touch()
    return folder


def bring(address: str, root: Path, name: str) -> str:
    """Have the engine import a root as an image of this name; its digest."""
    command = f"tar -C '{root}' -c . | docker --host '{address}' import - {name}"
    done = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def bring_debian(address: str, folder: Path) -> str:
    """The same of a Debian. Raises `Cannot`."""
    if given := os.environ.get("COVE_BASE_TAR"):
        command = ["docker", "--host", address, "import", given, DEBIAN]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()
    make_base(folder, packages=("python3",))
    try:
        return bring(address, folder, DEBIAN)
    finally:
        shutil.rmtree(folder)


def _busybox(folder: Path) -> Path:
    """A static one: of this machine, or of Debian's package, which is not installed."""
    for name in ("/bin/busybox", "/usr/bin/busybox"):
        if Path(name).exists() and b"statically linked" in _told("file", "-L", name):
            return Path(name)
    there = folder / "package"
    there.mkdir(exist_ok=True)
    try:
        subprocess.run(
            ["apt-get", "download", "-qq", "busybox-static"],
            cwd=there,
            check=True,
            capture_output=True,
        )
        package = next(there.glob("busybox-static_*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, there / "root"], check=True)
    except (OSError, subprocess.CalledProcessError, StopIteration) as error:
        raise Cannot(f"no static busybox: apt-get download busybox-static: {error}") from None
    return there / "root/bin/busybox"


def _told(*argv: str | Path) -> bytes:
    try:
        return subprocess.run(argv, capture_output=True).stdout
    except OSError:
        return b""
