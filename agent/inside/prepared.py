"""Starts that were prepared: a process that waits, and where its output is to go.

One belongs to the connection that asked for it and goes with it, so that none is ever left over
and none keeps the sandbox awake.
"""

import os

from agent import MOST_PREPARED, frames
from agent.inside.connection import Connection
from agent.inside.limits import Processes
from agent.inside.spawn import Blank, SpawnError, blank


class Prepared:
    """One of them. `descriptors` are those of a start: log, result, control groups."""

    def __init__(
        self, owner: Connection, number: int, waiting: Blank, fds: list[int], *, exact: bool
    ) -> None:
        self.owner = owner
        self.number = number
        """Of the request, which is answered when all is set up, or cannot be; 0 after that."""
        self.blank = waiting
        self.descriptors = fds
        self.exact = exact
        """The third and fourth are of the v2 hierarchy."""

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


class Preparations:
    """All that wait for their command."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._all: dict[bytes, Prepared] = {}

    def add(self, owner: Connection, number: int, fields: list[bytes], fds: list[int]) -> None:
        """Begin one; its owner is told when it is set up. Takes what is in `fds` over."""
        token, unified = fields
        if token in self._all:
            raise ValueError("prepared already")
        if self._processes.few or len(self._all) >= MOST_PREPARED:
            raise SpawnError(frames.LIMIT_REACHED, 0, "too many prepared starts")
        exact = unified != b"0"
        waiting = blank(joins(fds, exact=exact), self._processes.rlimit)
        self._all[token] = Prepared(owner, number, waiting, list(fds), exact=exact)
        fds.clear()

    def take(self, token: bytes) -> Prepared:
        """Whoever takes it closes it. Raises SpawnError when it is gone, or not set up yet."""
        found = self._all.get(token)
        if found is None or found.number:
            raise SpawnError(frames.NOT_PREPARED, 0, "nothing is prepared as this")
        return self._all.pop(token)

    def forget(self, token: bytes) -> None:
        """End one that is set up and is not used after all."""
        found = self._all.get(token)
        if found and not found.number:
            del self._all[token]
            found.blank.drop()
            found.close()

    def unready(self) -> dict[int, Prepared]:
        """Those that are being set up, by the descriptor that is readable when that is over."""
        return {each.blank.report: each for each in self._all.values() if each.number}

    def of(self, pid: int) -> Prepared | None:
        """The one that is this process."""
        return next((each for each in self._all.values() if each.blank.pid == pid), None)

    def remove(self, ended: Prepared) -> None:
        """Forget one that ends by itself, or has."""
        self._all = {token: each for token, each in self._all.items() if each is not ended}
        ended.blank.close()
        ended.close()

    def drop_orphans(self) -> None:
        """End those whose owner has left."""
        for token, each in list(self._all.items()):
            if not each.owner.open:
                del self._all[token]
                each.blank.drop()
                each.close()

    def pids(self) -> set[int]:
        return {each.blank.pid for each in self._all.values()}


def joins(fds: list[int], *, exact: bool) -> list[int]:
    """Of the descriptors of a start those of `cgroup.procs`."""
    return [*fds[2:3], *fds[4:]] if exact else fds[2:]
