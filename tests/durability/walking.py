"""What tests that walk share: where a process is to die, and a process that can be told to."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.durability import walk

POINTS = int(os.environ.get("COVE_START_POINTS", "40"))
"""Of each walk in `make test-long`; there are some hundred."""
DEATHS = int(os.environ.get("COVE_DEATH_POINTS", "10"))
"""The same of gateway, provider, launcher and client, each of which takes seconds to come back."""
PART, PARTS = map(int, os.environ.get("COVE_WALK_PART", "1/1").split("/"))
"""Which of how many parts of each walk, as a whole one takes long."""
FEW = 1
ROOT = Path(walk.__file__).parent.parent.parent


@dataclass
class Walking:
    """A walk through the points of one process, in a folder that tells it where to die."""

    folder: Path

    def at(self, point: str) -> None:
        """From now on; an empty one is nowhere."""
        (self.folder / "points").unlink(missing_ok=True)
        writing = self.folder / "at.new"
        writing.write_text(point)
        writing.rename(self.folder / "at")

    def never(self) -> None:
        (self.folder / "at").unlink(missing_ok=True)

    def waits(self) -> bool:
        """Nobody has died yet."""
        return (self.folder / "at").exists()

    def points(self) -> list[str]:
        """Those that were reached, each once, in order."""
        return list(dict.fromkeys((self.folder / "points").read_text().split()))


def chosen(points: list[str], most: int) -> list[str]:
    """That many of them, spread evenly; of those, the part that is to be walked."""
    if most < len(points):
        points = [points[at * len(points) // most] for at in range(most)]
    return points[PART - 1 :: PARTS]


@contextmanager
def walked(argv: list[str], env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    program = [sys.executable, walk.__file__, *argv]
    with subprocess.Popen(program, env=env, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()
