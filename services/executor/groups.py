"""The control group of each execution, below that of its environment. Only for root.

With it a kill reaches everything, an end by lack of memory is told from any other, and use is
measured over all processes. Without it the agent does what can be done from inside.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

from services.executor.ending import Usage
from services.executor.measuring import now, read, together, usage_v1, usage_v2

_AGENT: Final = "agent"
_PREFIX: Final = "x-"
_V1: Final = ("memory", "cpuacct", "freezer", "pids")
"""Hierarchies of version 1 that are of use for every single execution."""
_CPU: Final = ("cpu",)
"""Those that are for some."""
_LIMITED: Final = ("memory", "pids", "cpu")
_SWEEP: Final = 0.005
_MOST_FOUND: Final = 1024
"""Environments whose groups are remembered, as every start needs them."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup file system."""

    mount: Path
    root: str
    """Which group of the hierarchy is mounted there."""
    controllers: frozenset[str]
    """Empty for version 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joins:
    """What the agent needs to put a command into its groups."""

    procs: tuple[int, ...] = ()
    unified: tuple[int, int] | None = None


class Groups:
    """Makes, reads, empties and removes the groups of executions."""

    def __init__(self, hierarchies: Sequence[Hierarchy]) -> None:
        self._hierarchies = hierarchies
        self._found = lru_cache(_MOST_FOUND)(self._find)
        self._left: set[str] = set()
        """To be removed when what is in them has ended."""

    @classmethod
    def here(cls) -> Self:
        """As root what is mounted; else nothing, as groups belong to root."""
        if os.geteuid() != 0:
            return cls(())
        return cls(tuple(_mounted(Path("/proc/self/mountinfo").read_text())))

    def paths(self, agent_pid: int, token: str, *, cpu: bool = False) -> list[str]:
        """Where the groups of an execution go, in the environment of that agent.

        `cpu`: also where its processor time per time is limited.
        """
        wanted = (*_V1, *_CPU) if cpu else _V1
        return [str(path / f"{_PREFIX}{token}") for path in self._environment(agent_pid, wanted)]

    @contextmanager
    def joining(self, paths: Iterable[str]) -> Iterator[Joins]:
        """Make the groups, and open what the agent needs. Closes it again on leaving."""
        procs: list[int] = []
        unified: tuple[int, int] | None = None
        with ExitStack() as stack:
            for path in paths:
                Path(path).mkdir(exist_ok=True)
                if self._controllers(path) is None:
                    if Path(path, "cgroup.kill").exists():
                        unified = (
                            _open(stack, f"{path}/cgroup.procs", os.O_RDWR),
                            _open(stack, f"{path}/cgroup.kill", os.O_WRONLY),
                        )
                else:
                    procs.append(_open(stack, f"{path}/cgroup.procs", os.O_WRONLY))
            yield Joins(procs=tuple(procs), unified=unified)

    def usage(self, paths: Iterable[str]) -> Usage:
        """What the groups counted so far; 0 for those that are gone."""
        return together(self._usage(path) for path in paths)

    def environment_usage(self, agent_pid: int) -> Usage | None:
        """What all of an environment uses together, its agent too; None where nothing tells."""
        paths = [str(path) for path in self._environment(agent_pid, (*_V1, *_CPU))]
        if not paths:
            return None
        return together((*map(self._usage, paths), *map(now, paths)))

    def current(self, paths: Iterable[str]) -> Usage:
        """As `usage`, with what is held now."""
        return together(each for path in paths for each in (self._usage(path), now(path)))

    def methods(self, agent_pid: int) -> dict[str, str]:
        """By what executions can be limited in the environment of that agent.

        For `memory`, `pids` and `cpu` cgroup_v1 or cgroup_v2, nothing where they cannot.
        """
        found: dict[str, str] = {}
        for path in map(str, self._environment(agent_pid, (*_V1, *_CPU))):
            controllers = self._controllers(path)
            version = "cgroup_v1" if controllers else "cgroup_v2"
            inside = controllers or read(f"{path}/cgroup.subtree_control").split()
            found |= {name: version for name in _LIMITED if name in inside}
        return found

    def node_methods(self) -> dict[str, str]:
        """As `methods`, of environments to come, as far as that can be known now."""
        found: dict[str, str] = {}
        for each in self._hierarchies:
            if not os.access(each.mount, os.W_OK):
                continue
            version = "cgroup_v1" if each.controllers else "cgroup_v2"
            inside = each.controllers or read(f"{each.mount}/cgroup.controllers").split()
            found |= {name: version for name in _LIMITED if name in inside}
        return found

    @property
    def counts(self) -> bool:
        """Whether executions have groups, if their environments do."""
        return bool(self._hierarchies)

    def _usage(self, path: str) -> Usage:
        controllers = self._controllers(path)
        return usage_v2(path) if controllers is None else usage_v1(path, controllers)

    def members(self, paths: Iterable[str]) -> set[int]:
        """Pids of what is in the groups."""
        return {int(pid) for path in paths for pid in read(f"{path}/cgroup.procs").split()}

    def kill(self, paths: Sequence[str], timeout: float = 10.0) -> bool:
        """Kill all that is in the groups; true when nothing is left after `timeout` seconds."""
        for path in paths:
            with suppress(OSError):
                Path(path, "cgroup.kill").write_text("1")
        give_up = time.monotonic() + timeout
        while left := self.members(paths):
            if time.monotonic() > give_up:
                return False
            for pid in left:
                self._kill(pid, paths)
            time.sleep(_SWEEP)
        return True

    def remove(self, paths: Iterable[str]) -> None:
        """Remove the groups; those with processes when `remove_left` finds them empty."""
        for path in paths:
            self._left.discard(path)
            try:
                Path(path).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                self._left.add(path)

    @property
    def are_left(self) -> bool:
        """Some could not be removed yet."""
        return bool(self._left)

    def remove_left(self) -> None:
        """Try again to remove what could not be."""
        self.remove(tuple(self._left))

    def left(self, agent_pid: int) -> list[str]:
        """Paths of all executions' groups in the environment of that agent."""
        return [
            str(path)
            for environment in self._environment(agent_pid, (*_V1, *_CPU))
            for path in environment.glob(f"{_PREFIX}*")
        ]

    def _kill(self, pid: int, paths: Sequence[str]) -> None:
        """Kill a member; never a stranger who got its pid meanwhile."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return
        try:
            if pid in self.members(paths):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)

    def _environment(self, agent_pid: int, wanted: tuple[str, ...]) -> list[Path]:
        """The environment's own group in each hierarchy; the agent is in `agent` below it."""
        return self._found(read(f"/proc/{agent_pid}/cgroup"), wanted)

    def _find(self, memberships: str, wanted: tuple[str, ...]) -> list[Path]:
        found = []
        for line in memberships.splitlines():
            _, names, path = line.split(":", 2)
            controllers = frozenset(filter(None, names.split(",")))
            if Path(path).name != _AGENT or not (not controllers or controllers & {*wanted}):
                continue
            for hierarchy in self._hierarchies:
                if hierarchy.controllers == controllers:
                    below = os.path.relpath(path, hierarchy.root)
                    found.append((hierarchy.mount / below).parent)
                    break
        return found

    def _controllers(self, path: str) -> frozenset[str] | None:
        """Of the hierarchy of a group; None for version 2."""
        for each in self._hierarchies:
            if path.startswith(f"{each.mount}/"):
                return each.controllers or None
        return frozenset()


def _mounted(mountinfo: str) -> Iterator[Hierarchy]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            yield Hierarchy(Path(mount), root, frozenset())
        elif kind == "cgroup":
            known = frozenset(options.split(",")) - {"rw", "ro", "xattr", "clone_children"}
            plain = frozenset(each for each in known if not each.startswith("release_agent="))
            yield Hierarchy(Path(mount), root, plain)


def _open(stack: ExitStack, path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor
