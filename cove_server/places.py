"""Where the suite keeps its state and its sockets, and that nobody else does at the same time."""

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cove_server.admin import moving
from cove_server.errors import CannotStart
from servicekit.config import default_runtime, default_state

LONGEST_RUNTIME: Final = 78
"""Bytes; so that the longest socket below it, `a/<uid>`, stays below 100."""

_TAKE_OVER: Final = 25.0
"""Seconds that the services of a killed `cove up` get to end."""


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one node."""

    state: Path
    runtime: Path

    @classmethod
    def choose(cls, env: Mapping[str, str], state: Path | None, runtime: Path | None) -> Self:
        """What was asked for, else what the variables say, else the defaults.

        Sockets of a state directory that is not the default one are in `run` below it, or,
        where that path is too long for a socket, in a directory named after its hash.
        """
        chosen = (state or Path(env.get("COVE_STATE") or default_state(env))).absolute()
        if asked := runtime or env.get("COVE_RUNTIME"):
            return cls(chosen, Path(asked).absolute())
        if chosen == default_state(env):
            found = default_runtime(env, chosen)
            return cls(chosen, found if _short(found) else _by_hash(env, chosen))
        below = chosen / "run"
        return cls(chosen, below if _short(below) else _by_hash(env, chosen))

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def token(self) -> Path:
        """Made by the registry at its first start."""
        return self.state / "registry" / "token"

    def socket(self, name: str) -> Path:
        return self.runtime / name

    @contextlib.contextmanager
    def held(self, take_over: float = _TAKE_OVER) -> Iterator[int]:
        """Make the directories and keep everyone else out of them.

        Yields a descriptor for the services to hold: what a killed `cove up` left running has
        ended when nobody holds it any more. Raises `CannotStart`.
        """
        if not _short(self.runtime):
            raise CannotStart(
                f"{self.runtime} is too long for the path of a socket",
                "Name a short directory with --runtime.",
            )
        for folder in (self.state, self.logs, self.runtime):
            _make_private(folder)
        with _lock(self.state / "up.lock") as own, _lock(self.runtime / "up.lock") as sockets:
            _take(own, self.state)
            _take(sockets, self.runtime)
            with _lock(self.state / "services.lock") as shared:
                _wait(shared, take_over)
                _restored(self.state)
                yield shared

    def node(self) -> str:
        """The name of this node, made once."""
        path = self.state / "node"
        with contextlib.suppress(FileNotFoundError):
            return path.read_text("ascii").strip()
        name = f"node-{secrets.token_hex(4)}"
        fresh = path.with_suffix(".new")
        fresh.write_text(f"{name}\n", "ascii")
        fresh.replace(path)
        return name


def _restored(state: Path) -> None:
    """Go on with a restore that was killed while it put things in place."""
    try:
        moving.go_on(state)
    except (ValueError, OSError) as error:
        raise CannotStart(
            f"a restore into {state} was interrupted and cannot be finished: {error}",
            "What was there and what was to come are both in it: see docs/operations.md.",
        ) from None


def _short(path: Path) -> bool:
    return len(os.fsencode(path)) <= LONGEST_RUNTIME


def _by_hash(env: Mapping[str, str], state: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    if os.geteuid() == 0:
        return Path(f"/run/cove-{digest}")
    if base := env.get("XDG_RUNTIME_DIR"):
        return Path(base) / f"cove-{digest}"
    return Path(f"/tmp/cove-{os.geteuid()}-{digest}")  # noqa: S108 - ours alone, checked below.


def _make_private(folder: Path) -> None:
    """Raises `CannotStart` unless the folder is ours and closed to others."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(folder)
    except OSError as error:
        raise CannotStart(
            f"{folder} cannot be made: {error.strerror}",
            "Name other directories with --state and --runtime.",
        ) from None


def check_private(folder: Path) -> None:
    """Raises `CannotStart` unless the folder is ours and closed to others, or `OSError`."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise CannotStart(f"{folder} is not a directory of this user")
    if found.st_mode & 0o077:
        raise CannotStart(f"{folder} is open to others", f"chmod 0700 {folder}")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode().strip()
        raise CannotStart(
            f"another `cove up` uses {folder}, process {holder or 'unknown'}",
            "Use that one, end it, or name another directory with --state.",
        ) from None
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _wait(descriptor: int, seconds: float) -> None:
    """Wait for the services of a killed `cove up`: they end with it, but not at once."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise CannotStart(
                    "services of an earlier `cove up` are still running",
                    "End them, then start again.",
                ) from None
            time.sleep(0.05)
        else:
            return
