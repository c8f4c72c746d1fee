"""Commands that harm where they run as much as they can, and how each of them ends."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cove.executor.v1.executor_pb2 import Exit
from cove.registry.v1.registry_pb2 import Limits

LIMITS: Final = Limits(processes=150, memory_bytes=256 << 20, disk_bytes=128 << 20)
"""Of the workspace of all of them. So many processes have less memory than is allowed."""
_LONG: Final = 900.0
"""Seconds that are never reached, else the exit says another thing."""


@dataclass(frozen=True)
class Bomb:
    """A program in Python, and what its exit names."""

    code: str
    ends: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the start."""
    written_to: bool = False
    """Somebody writes to its input all the time."""


BOMBS: Final = {
    "forks": Bomb(
        """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
        "limit PIDS",
    ),
    "eats memory": Bomb(
        "kept = []\nwhile True: kept.append(b'x' * (1 << 20))",
        "limit MEMORY",
    ),
    "fills the disk": Bomb(
        """
import itertools, os
data = os.urandom(1 << 20)
for number in itertools.count():
    with open(f"filling-{number}", "wb", buffering=0) as file:
        file.write(data)
""",
        "limit DISK",
    ),
    "floods": Bomb(
        "import os\ndata = bytes(1 << 16)\nwhile True: os.write(1, data)",
        "limit OUTPUT",
        {"output_limit": 256 << 20},
    ),
    "ten thousand processes": Bomb(
        """
import os
for _ in range(10000):
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
""",
        "code 0",
    ),
    "kills everybody": Bomb(
        """
import os
for _ in range(1000):
    try:
        os.kill(-1, 9)
    except ProcessLookupError:
        pass
os.abort()
""",
        "signal 6",
    ),
    "closes all": Bomb(
        "import os, time\nos.closerange(0, 1 << 16)\ntime.sleep(1)\nos._exit(3)",
        "code 3",
    ),
    "never reads": Bomb(
        "import time\ntime.sleep(3600)",
        "timed out TIMEOUT",
        {"stdin": True, "timeout": 3},
        written_to=True,
    ),
    "stops everybody": Bomb(
        """
import os, signal
while True:
    try:
        os.kill(-1, signal.SIGSTOP)
    except OSError:
        pass
""",
        "timed out TIMEOUT",
        {"timeout": 3},
    ),
}


def options(bomb: Bomb) -> dict[str, Any]:
    """Of its start; what has no time of its own has more than it needs."""
    return {"timeout": _LONG, **bomb.options}


def named(end: Exit) -> str:
    """What an exit names."""
    match end.WhichOneof("reason"):
        case "code":
            return f"code {end.code}"
        case "signal":
            return f"signal {end.signal.number}"
        case "limit":
            return f"limit {Exit.Limited.Which.Name(end.limit.which)[len('WHICH_') :]}"
        case "timed_out":
            return f"timed out {Exit.TimedOut.Which.Name(end.timed_out.which)[len('WHICH_') :]}"
        case other:
            return str(other)
