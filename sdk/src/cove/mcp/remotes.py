"""Credentials for remotes: the operator's, out of the environment, never from a model.

A model chooses the URL of a repository, and may have been talked into it by what it read. So a
password is sent to hosts that the operator has named, and to no other.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cove.git.v1 import git_pb2

USERNAME: Final = "COVE_REMOTE_USERNAME"
PASSWORD: Final = "COVE_REMOTE_PASSWORD"  # noqa: S105 - the name of a variable.
HOSTS: Final = "COVE_REMOTE_HOSTS"

_URL: Final = re.compile(r"https://([A-Za-z0-9.-]+(?::\d+)?)(?:/[^\\@]*)?")


@dataclass(frozen=True, slots=True)
class Remotes:
    """What proves the operator to remotes, and to which."""

    username: str = ""
    password: str = field(default="", repr=False)
    hosts: frozenset[str] = frozenset()
    """`name` or `name:port`."""

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Remotes":
        hosts = (host.strip().lower() for host in env.get(HOSTS, "").split(","))
        return cls(
            username=env.get(USERNAME, ""),
            password=env.get(PASSWORD, ""),
            hosts=frozenset(host for host in hosts if host),
        )

    @property
    def idle(self) -> bool:
        """Whether there is a password that nobody may be sent."""
        return bool(self.password) and not self.hosts

    def credentials(self, url: str) -> git_pb2.Credentials | None:
        """What that repository's host may be sent; None: nothing."""
        found = _URL.fullmatch(url)
        if not found or found[1].lower() not in self.hosts or not self.password:
            return None
        return git_pb2.Credentials(
            https=git_pb2.Credentials.Https(username=self.username, password=self.password)
        )
