"""Settings of git."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final

from servicekit.config import ByteSize, ServerConfig

_DEFAULT_REPOSITORY: Final = ByteSize(20 << 30)
_DEFAULT_CHECKOUTS: Final = ByteSize(10 << 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    """Each field is set by the variable `COVE_GIT__<FIELD>`."""

    service: ClassVar[str] = "git"

    local_roots: tuple[Path, ...] = ()
    """Directories below which repositories may be used by path, separated by commas; `/`
    allows all. Empty: none."""

    allowed_hosts: tuple[str, ...] = ()
    """Hosts (`name` or `name:port`) that may have a private or loopback address."""

    http_hosts: tuple[str, ...] = ()
    """Hosts (`name` or `name:port`) that may be talked to without TLS. For tests."""

    ca_file: Path | None = None
    """A PEM file with certificate authorities that are trusted for https besides the system's,
    for hosts of one's own. Read at start."""

    access_ttl: timedelta = timedelta(minutes=5)
    """How long a caller that has proven its access to an origin need not do so again."""

    remote_timeout: timedelta = timedelta(minutes=9)
    """How long a clone, fetch or push may take."""

    max_repository_bytes: ByteSize = _DEFAULT_REPOSITORY
    """How large the packs of a repository may get."""

    checkout_cache: ByteSize = _DEFAULT_CHECKOUTS
    """How much disk the checkouts may take that worktrees are layers over. The least recently used
    go first; those in use never do."""

    sandbox_uids: str = field(default="", metadata={"variable": "COVE_PROVIDER__SANDBOX_UIDS"})
    """Uids outside, `first-last`, of which each tenant's sandboxes get one of their own; see
    docs/security.md. Only as root. Empty: all are of one user."""

    committer_name: str = "Cove"
    """Name of the committer of every commit, and of its author where none is given."""

    committer_email: str = "cove@localhost"
    """Mail address of the same."""
