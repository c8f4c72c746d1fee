"""Control groups: one for each environment below the launcher's own, in every hierarchy.

Which hierarchies there are and what they enforce is found out by trying, once, at start.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from agent import FEWEST_PROCESSES, MOST_PREPARED
from agent.protocol import Limits

_WANTED: Final = ("memory", "pids", "cpu")
_FREEZER: Final = ("freezer",)
"""Of version 1; in version 2 every group can be frozen."""
_CPU_PERIOD_US: Final = 100_000
_CPU_LEAST_US: Final = 1000
"""The kernel takes no less, which is a hundredth of a processor."""
_OURS: Final = 2
"""Processes in a group that are no command's: bwrap and the agent."""

_ASIDE: Final = "-launcher"
AGENT: Final = "agent"
"""The group of the agent alone, in that of its environment."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One tree of groups, and the group in it that holds our environments."""

    version: int
    controllers: frozenset[str]
    base: Path

    def settings(self, limits: Limits) -> Iterator[tuple[str, str]]:
        """Files to write, and what. Those for swap are missing where swap is not accounted."""
        one = self.version == 1
        if "memory" in self.controllers and limits.memory_bytes:
            memory = str(limits.memory_bytes)
            yield ("memory.limit_in_bytes" if one else "memory.max"), memory
            yield ("memory.memsw.limit_in_bytes", memory) if one else ("memory.swap.max", "0")
        if "pids" in self.controllers and limits.pids:
            prepared = MOST_PREPARED * (limits.pids >= FEWEST_PROCESSES)
            yield "pids.max", str(limits.pids + _OURS + prepared)
        if "cpu" in self.controllers and limits.cpu_millis:
            quota = str(max(_CPU_LEAST_US, limits.cpu_millis * _CPU_PERIOD_US // 1000))
            yield ("cpu.cfs_quota_us", quota) if one else ("cpu.max", f"{quota} {_CPU_PERIOD_US}")


class Cgroups:
    """All hierarchies in which we may make groups; none is fine.

    `freezer` is one of version 1 that does nothing but freeze. In `earlier` are groups of sandboxes
    that a launcher started from elsewhere.
    """

    def __init__(
        self,
        hierarchies: list[Hierarchy],
        freezer: Hierarchy | None = None,
        earlier: Sequence[Path] = (),
    ) -> None:
        self._hierarchies = hierarchies
        self._earlier = earlier
        self._all = [*hierarchies, *filter(None, (freezer,))]
        self._freezer = next((each for each in hierarchies if _can_freeze(each)), freezer)

    @classmethod
    def probe(cls, name: str, earlier: Sequence[Path] = ()) -> Self:
        """Make the group `name` below our own wherever that is allowed."""
        found = [each for own in _own_groups() if (each := _prepare(own, name))]
        if any(map(_can_freeze, found)):
            return cls(found, None, earlier)
        old = [each for own in _own_groups(_FREEZER) if (each := _prepare(own, name))]
        return cls(found, next((each for each in old if each.controllers), None), earlier)

    def enforces(self, controller: str) -> str:
        """`cgroup_v1`, `cgroup_v2`, or empty."""
        for each in self._hierarchies:
            if controller in each.controllers:
                return f"cgroup_v{each.version}"
        return ""

    @property
    def freezes(self) -> str:
        """By what a group is frozen: `cgroup_v1`, `cgroup_v2`, or empty."""
        return f"cgroup_v{self._freezer.version}" if self._freezer else ""

    def freeze(self, uid: str, *, on: bool) -> bool:
        """Have the kernel freeze, or thaw; false where that changes nothing.

        To freeze takes its time: `frozen` tells. Raises OSError, but not where there is no group
        to be thawed.
        """
        if self._freezer is None:
            return False
        one = self._freezer.version == 1
        file = self._freezing(uid)
        words = ("THAWED", "FROZEN") if one else ("0", "1")
        try:
            before = file.read_text().strip() != words[0]
            file.write_text(words[on])
        except OSError as error:
            if on or error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
            return False
        return before != on

    def frozen(self, uid: str) -> bool:
        """Whether everything in it is frozen. Raises OSError."""
        if self._freezer is None:
            return False
        file = self._freezing(uid)
        if self._freezer.version == 1:
            return file.read_text().strip() == "FROZEN"
        return "frozen 1" in file.with_name("cgroup.events").read_text().splitlines()

    def _freezing(self, uid: str) -> Path:
        """The file by which it is frozen, in our group, or where it was started."""
        assert self._freezer
        name = "freezer.state" if self._freezer.version == 1 else "cgroup.freeze"
        files = [each / uid / name for each in (self._freezer.base, *self._earlier)]
        return next((each for each in files if each.exists()), files[0])

    def paths(self, uid: str) -> tuple[Path, ...]:
        """The environment's group in each hierarchy."""
        bases = *(each.base for each in self._hierarchies), *self._earlier
        return tuple(group for each in bases if (group := each / uid).is_dir())

    def create(self, uid: str, limits: Limits) -> None:
        """Make the groups and set the limits. Raises OSError."""
        for each in self._all:
            group = each.base / uid
            group.mkdir(parents=True, exist_ok=True)
            for file, value in each.settings(limits):
                if "sw" not in file or (group / file).exists():
                    _set(group / file, value)
            if each.version == 2:
                _delegate(group, each.controllers)
            (group / AGENT).mkdir(exist_ok=True)

    def join(self, uid: str) -> None:
        """Move this process into the agent's groups."""
        for each in self._all:
            (each.base / uid / AGENT / "cgroup.procs").write_text("0")

    def kill(self, uid: str) -> None:
        """Kill all processes at once, where the kernel can."""
        for path in self.paths(uid):
            with suppress(OSError):
                (path / "cgroup.kill").write_text("1")

    def remove(self, uid: str) -> bool:
        """Remove the groups; false when something still holds one."""
        bases = *(each.base for each in self._all), *self._earlier
        removed = [_remove(each / uid) for each in bases]
        return all(removed)

    def leftovers(self) -> set[str]:
        """Uids that have groups."""
        names: set[str] = set()
        for base in (*(each.base for each in self._all), *self._earlier):
            with suppress(OSError):
                names.update(path.name for path in base.iterdir() if path.is_dir())
        return names

    def close(self) -> None:
        """Remove our own groups where no environment is left."""
        for each in self._all:
            with suppress(OSError):
                each.base.rmdir()


def group_name(runtime: Path) -> str:
    """Of the groups of the launcher that has this runtime directory."""
    return f"cove-{hashlib.sha256(bytes(runtime)).hexdigest()[:8]}"


def places(name: str) -> list[Path]:
    """Where the groups of a launcher go that is started from here."""
    bases = [each.base for each in (*_own_groups(), *_own_groups(_FREEZER))]
    return list(dict.fromkeys(base / each for base in bases for each in (name, f"{name}{_ASIDE}")))


def remove_left(name: str) -> None:
    """Remove the groups that a launcher which has ended left: it cannot leave its own."""
    for each in places(name):
        _remove(each)


def remove_empty(base: Path) -> None:
    """Remove what has no process of the groups in `base`, and that itself if nothing is left."""
    with suppress(OSError):
        for group in base.iterdir():
            if group.is_dir() and not _busy(group):
                _remove(group)
        base.rmdir()


def _set(file: Path, value: str) -> None:
    """Raises OSError."""
    try:
        file.write_text(value)
    except OSError as error:
        # Of processor time no group gets more than one above it, which is the limit anyway.
        if file.name != "cpu.cfs_quota_us" or error.errno != errno.EINVAL:
            raise


def _can_freeze(each: Hierarchy) -> bool:
    return each.version == 2 and (each.base / "cgroup.freeze").exists()


def _own_groups(wanted: Iterable[str] = _WANTED) -> Iterator[Hierarchy]:
    """The group this process is in, for every hierarchy that is mounted and has a use."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        controllers = frozenset(names.split(",")) & frozenset(wanted)
        for fields in mounts:
            kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
            fits = kind == "cgroup" and controllers & set(options) if names else kind == "cgroup2"
            root, point = fields[3], fields[4]
            inside = os.path.relpath(path, root)
            if fits and not inside.startswith(".."):
                yield Hierarchy(1 if names else 2, controllers, Path(point) / inside)
                break


def _prepare(own: Hierarchy, name: str) -> Hierarchy | None:
    base = own.base / name
    try:
        base.mkdir(exist_ok=True)
        if own.version == 1:
            return Hierarchy(1, own.controllers, base)
        available = frozenset((own.base / "cgroup.controllers").read_text().split())
        wanted = available & frozenset(_WANTED)
        if wanted and not _delegate(own.base, wanted):
            # A group with processes cannot pass controllers on: step out of it first.
            aside = own.base / f"{name}{_ASIDE}"
            aside.mkdir(exist_ok=True)
            (aside / "cgroup.procs").write_text("0")
            wanted = wanted if _delegate(own.base, wanted) else frozenset()
        if wanted and not _delegate(base, wanted):
            wanted = frozenset()
        return Hierarchy(2, wanted, base)
    except OSError:
        with suppress(OSError):
            base.rmdir()
        return None


def _delegate(group: Path, controllers: frozenset[str]) -> bool:
    """Let groups below have these controllers."""
    try:
        text = " ".join(f"+{name}" for name in sorted(controllers))
        (group / "cgroup.subtree_control").write_text(text)
    except OSError:
        return False
    return True


def _busy(group: Path) -> bool:
    """Whether there is a process in it, or below it. Raises OSError."""
    below = (_busy(each) for each in group.iterdir() if each.is_dir())
    return bool((group / "cgroup.procs").read_text().strip()) or any(below)


def _remove(path: Path) -> bool:
    try:
        for child in path.iterdir():
            if child.is_dir():
                _remove(child)
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
