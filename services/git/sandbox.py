"""What a cell is, and what bubblewrap is told of it."""

import pwd
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.git.entrance import Entrance

MADE: Final = "/run/cell/made"
"""Where a cell's constants are."""
_LINKS: Final = ("bin", "sbin", "lib", "lib32", "lib64")
_NETWORK_FILES: Final = (
    "/etc/ssl",
    "/etc/ca-certificates",
    "/etc/pki",
    "/etc/nsswitch.conf",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A user on the host that a cell runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A directory of the host and where the cell sees it."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one command may see and touch.

    It is kept warm for others that are alike but for `cwd` and `constants`, unless it has
    `network`, `lent` or `files`, or is made for something that is done `once`.
    """

    identity: Identity
    binds: Sequence[Bind] = ()
    lent: Sequence[Bind] = ()
    """Directories and files of others, reached with the rights that the identity has."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Small files that exist in the cell's memory alone, mode 0600: never on a disk."""
    constants: Mapping[str, bytes] = field(default_factory=dict)
    """Small files below `MADE` that are no secret. A path has one content for ever: later
    commands find them, too. A path that ends with a slash is an empty directory."""
    directories: Sequence[str] = ()
    """Empty directories of the cell's memory."""
    memories: Mapping[str, int] = field(default_factory=dict)
    """Such directories that can hold so many bytes each."""
    cwd: str = "/"
    memory: int = 2 << 30
    """Bytes of address space that each of its processes may have."""
    network: bool = False
    once: bool = False
    """Nobody will soon need the same: it is not kept, which would take longer to start."""

    @property
    def is_kept(self) -> bool:
        return not (self.network or self.lent or self.files or self.memories or self.once)


def view(
    entrance: Entrance, cell: Cell, files: Mapping[str, int], empty: Iterable[str] = ()
) -> list[str]:
    """The words that enter a cell with bubblewrap, as far as they say what is in it.

    `files` are to be read from these descriptors; `empty` are more directories.
    """
    seen = entrance.path
    argv = [
        seen(entrance.bwrap),
        "--unshare-all",
        "--unshare-user",
        "--die-with-parent",
        "--new-session",
    ]
    argv += ["--cap-drop", "ALL", "--hostname", "cove"]
    if cell.network:
        argv.append("--share-net")
    argv += [*_system(), "--proc", "/proc", "--dev", "/dev"]
    for bind in cell.lent:
        argv += ["--bind" if bind.writable else "--ro-bind", str(bind.source), bind.target]
    if cell.binds or files:
        argv += ["--dir", "/run/cell"]
    for bind in cell.binds:
        argv += ["--bind" if bind.writable else "--ro-bind", seen(bind.source), bind.target]
    for directory in (*cell.directories, *empty):
        argv += ["--dir", directory]
    for target, size in cell.memories.items():
        argv += ["--size", str(size), "--tmpfs", target]
    for target, descriptor in files.items():
        argv += ["--perms", "0600", "--file", str(descriptor), target]
    if cell.network:
        for path in _NETWORK_FILES:
            argv += ["--ro-bind-try", path, path]
    return [*entrance.prefix(cell.identity.uid, cell.identity.gid), *argv]


def owner_of(path: Path) -> Identity:
    """The user that owns `path`, with the group that user has by default."""
    found = path.stat()
    with suppress(KeyError):
        return Identity(found.st_uid, pwd.getpwuid(found.st_uid).pw_gid)
    return Identity(found.st_uid, found.st_gid)


def _system() -> list[str]:
    argv = ["--ro-bind", "/usr", "/usr"]
    for name in _LINKS:
        path = Path("/", name)
        if path.is_symlink():
            argv += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            argv += ["--ro-bind", str(path), str(path)]
    argv += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    argv += ["--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]
    return [*argv, "--size", str(64 << 20), "--tmpfs", "/tmp"]  # noqa: S108 - the cell's own.
