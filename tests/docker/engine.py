"""An engine of containers of the tests' own, of which nothing is left of this machine's network."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.compose.daemon import daemon
from tests.compose.machine import require_root
from tests.docker.images import BARE, bring, make_bare

ALONE: Final = ("--bridge", "none", "--iptables=false", "--ip6tables=false")


@contextlib.contextmanager
def bench() -> Iterator[Path]:
    """A folder with a short path, as there are to be sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="ce", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[str]:
    """One that has the image BARE; yields its address. Raises `Cannot`."""
    require_root("dockerd", "docker", "tar")
    bare = make_bare(folder / "bare")
    with daemon(folder / "d", *ALONE) as address:
        bring(address, bare, BARE)
        yield address
