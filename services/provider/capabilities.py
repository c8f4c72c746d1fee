"""What a driver can, in words that every driver and every caller has."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum


class Isolation(Enum):
    """How processes are kept apart from the host."""

    NONE = "none"
    ROOT = "root"
    USER = "user"


class Method(Enum):
    """By what a limit is enforced."""

    NONE = ""
    CGROUP_V1 = "cgroup_v1"
    CGROUP_V2 = "cgroup_v2"
    RLIMIT = "rlimit"


class Disk(Enum):
    """How hard a limit of the disk is."""

    NONE = ""
    SOFT = "soft"
    HARD = "hard"


class Capability(StrEnum):
    """What an environment can do beyond running one command after another and moving files."""

    LIVE_OUTPUT = "live_output"
    """Output can be read while the command runs, each byte as it was written."""
    INPUT = "input"
    """A command reads what is written to it while it runs."""
    TERMINAL = "terminal"
    """A command has a terminal, with a size, that others attach to."""
    SIGNALS = "signals"
    """To a process, its group, or all that it started."""
    BACKGROUND = "background"
    """Processes go on when the command that started them has ended, and are listed."""
    PARALLEL = "parallel"
    """Commands run beside each other on the same files."""
    ATOMIC = "atomic"
    """A command that is cancelled, or met a limit, leaves the files as they were."""
    SECRETS = "secrets"
    """Variables of one command that are recorded nowhere."""
    PORTS = "ports"
    """Ports of its own localhost are forwarded to callers."""
    ALLOW_LIST = "allow_list"
    """What can be reached is a list of hosts and ports, and else nothing."""
    FREEZE = "freeze"
    """All processes can be made to hold still, as for a snapshot of what is being written."""
    IMAGE = "image"
    """Programs see an image of the caller's choice as their root file system."""
    SETUP = "setup"
    """Scripts that are run on the image once, for all who name the same."""
    GIT = "git"
    """Programs see the worktree's repository, and commits that they make are taken over."""
    FORK_STATE = "fork_state"
    """A fork begins with what its source has outside of the worktree, too."""
    MEMORY_LIMIT = "memory_limit"
    """Memory of all processes together."""
    PROCESS_LIMIT = "process_limit"
    """Processes and threads."""
    CPU_LIMIT = "cpu_limit"
    """Processor time per time."""
    DISK_LIMIT = "disk_limit"
    """Bytes on disk of its own."""
    OPEN_FILES_LIMIT = "open_files_limit"
    """Descriptors of each process."""
    OUTLIVES_SERVICES = "outlives_services"
    """Commands go on, and lose nothing, when services of Cove are killed and started again."""


class Mounting(Enum):
    """How the files of a worktree come together."""

    PLAIN = "plain"
    OVERLAY = "overlay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    driver: str
    node: str
    isolation: Isolation
    memory: Method
    processes: Method
    cpu: Method
    idle_timeout: timedelta
    can: frozenset[Capability] = frozenset()
    mounts: frozenset[Mounting]
    disk: Disk = Disk.NONE
    open_files: Method = Method.NONE
    remedy: str = ""
    """What to do to get an environment of it here; empty when one can be made."""
