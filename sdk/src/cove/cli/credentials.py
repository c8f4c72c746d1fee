"""Credentials for a remote: from the environment, a file, or the standard input; never argv."""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from cove.cli.errors import UsageError
from cove.git.v1 import git_pb2

_USERNAME: Final = "COVE_REMOTE_USERNAME"
_PASSWORD: Final = "COVE_REMOTE_PASSWORD"  # noqa: S105 - the name of a variable.


def credentials(options: argparse.Namespace) -> git_pb2.Credentials | None:
    """What was given; None when nothing was. Raises `UsageError`."""
    if options.ssh_key:
        hosts = options.known_hosts or Path("~/.ssh/known_hosts").expanduser()
        ssh = git_pb2.Credentials.Ssh(private_key=_read(options.ssh_key), known_hosts=_read(hosts))
        return git_pb2.Credentials(ssh=ssh)
    password = os.environ.get(_PASSWORD, "")
    if options.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    username = options.username or os.environ.get(_USERNAME, "")
    if not password:
        if options.username or options.password_stdin:
            raise UsageError("no password", f"Use --password-stdin, or set {_PASSWORD}.")
        return None
    return git_pb2.Credentials(
        https=git_pb2.Credentials.Https(username=username, password=password)
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
