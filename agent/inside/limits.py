"""What commands may use: told before their start, put into force in their own process."""

import errno
import resource

from agent import FEWEST_PROCESSES, MOST_PREPARED, frames
from agent.inside.connection import Connection
from agent.inside.held import Held

_MOST = 256
_RESOURCES = {
    b"cpu": resource.RLIMIT_CPU,
    b"data": resource.RLIMIT_DATA,
    b"fsize": resource.RLIMIT_FSIZE,
    b"nofile": resource.RLIMIT_NOFILE,
    b"nproc": resource.RLIMIT_NPROC,
}


class Processes:
    """How many there may be; `most` 0 is any number.

    Where they are `counted` by a control group, it limits them, and tells of those it refused: a
    resource limit that is met before would hide a fork bomb.
    """

    def __init__(self, most: int, *, counted: bool) -> None:
        self.few = 0 < most < FEWEST_PROCESSES
        """Nothing is prepared then."""
        prepared = 0 if self.few else MOST_PREPARED
        self.rlimit = most + prepared if most and not counted else 0
        """RLIMIT_NPROC of each command, 0 for none."""


class Limited:
    """Limits of one execution."""

    def __init__(self, output: int = 0, packed: bytes = b"") -> None:
        self.output = output
        """Bytes of output at most; 0 is no limit."""
        self.packed = packed
        """Resource limits, as `apply` reads them."""


class Limits:
    """Those of starts that are to come, by execution. They go with who told them."""

    def __init__(self) -> None:
        self._all: dict[tuple[Connection, bytes], Limited] = {}

    def add(self, owner: Connection, execution_id: bytes, limited: Limited) -> None:
        """Raises OSError when there are too many."""
        if len(self._all) >= _MOST and (owner, execution_id) not in self._all:
            raise OSError(errno.EAGAIN, "too many starts to come")
        self._all[owner, execution_id] = limited

    def take(self, owner: Connection, execution_id: bytes) -> Limited:
        """Of the start that comes now, whether it is one or is refused."""
        return self._all.pop((owner, execution_id), None) or Limited()

    def drop_orphans(self, held: Held) -> None:
        """But of those whose start waits: it is made whoever has left."""
        for owner, execution_id in list(self._all):
            if not owner.open and not held.has(execution_id):
                del self._all[owner, execution_id]


def parse(fields: list[bytes]) -> Limited:
    """Bytes of output, then names of resources, each with a number. Raises ValueError."""
    output, *pairs = fields
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        if name not in _RESOURCES or not 0 < int(value) < 1 << 62:
            raise ValueError("no limit of a resource")
    return Limited(int(output), frames.pack(*pairs))


def apply(packed: bytes) -> None:
    """Put resource limits into force here; none is ever raised. Raises OSError."""
    fields = frames.unpack(packed)
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        kind, soft = _RESOURCES[name], int(value)
        hard = soft + (kind == resource.RLIMIT_CPU)  # First a signal that says so, then the end.
        _, most = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(kind, (soft, hard))
