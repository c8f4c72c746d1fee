"""Finds the processes of an execution and signals them."""

import os

from agent.inside import system

Process = tuple[int, int]
"""Pid and the time it started, which tells it from a later one with the same pid."""
Row = tuple[int, int, int]
"""Parent, the time it started, session."""

PROC = "/proc"


class Table:
    """What /proc says at one moment, for as many trees as there are."""

    def __init__(self) -> None:
        self._processes: dict[int, Row] | None = None
        self._environments: dict[int, list[bytes]] = {}

    @property
    def processes(self) -> dict[int, Row]:
        if self._processes is None:
            self._processes = processes()
        return self._processes

    def environment(self, pid: int) -> list[bytes]:
        if pid not in self._environments:
            self._environments[pid] = read_of(pid, "environ").split(b"\0")
        return self._environments[pid]


class Tree:
    """All that came from one command, as far as it can be found.

    With the v2 cgroup of the execution it is exact. Else it is the descendants of the command,
    those of whatever was found before, everything in its session, and everything whose
    environment names the execution: that of a process that was just forked and is about to be
    another program cannot be read for a moment.
    """

    def __init__(self, execution_id: bytes, unified: tuple[int, int] | None) -> None:
        self._mark = b"COVE_EXECUTION_ID=" + execution_id
        self._unified = unified
        self._known: set[Process] = set()
        self.leader = 0
        """Pid of the command; 0 when it has been reaped."""
        self.session = 0
        """Which the command leads, or led."""
        self.closed = False
        """Nobody was left."""

    def members(self, seen: Table | None = None) -> list[int]:
        """Who is alive now, or was when `seen` was made."""
        if self.closed:
            return []
        if self._unified:
            return self._listed(self._unified[0])
        seen = seen or Table()
        table = seen.processes
        found = {pid for pid, start in self._known if table.get(pid, (0, 0, 0))[1] == start}
        if self.leader in table:
            found.add(self.leader)
        # A pid is given out again only when no session has it as its name.
        if self.session and (self.leader or self.session not in table):
            found.update(pid for pid, row in table.items() if row[2] == self.session)
        found.update(
            pid for pid in table if pid not in found and self._mark in seen.environment(pid)
        )
        before = 0
        while before != len(found):
            before = len(found)
            found.update(pid for pid, row in table.items() if row[0] in found)
        self._known = {(pid, table[pid][1]) for pid in found}
        return sorted(found)

    def signal(self, number: int, group: int = 0) -> list[int]:
        """Signal everyone, or who is in one process group; returns who it was."""
        if number == system.SIGKILL and self._unified and not group:
            try:
                os.write(self._unified[1], b"1")
            except OSError:  # The group was removed, so nobody is in it.
                return []
        members = self.members()
        if group:
            members = [pid for pid in members if stat_of(pid)[2:3] == [b"%d" % group]]
        for pid in members:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        return members

    def close(self) -> None:
        for descriptor in self._unified or ():
            os.close(descriptor)
        self._unified = None
        self.closed = True

    @staticmethod
    def _listed(procs: int) -> list[int]:
        data = b""
        try:
            os.lseek(procs, 0, os.SEEK_SET)
            while piece := os.read(procs, 65536):
                data += piece
        except OSError:  # The group was removed, so nobody is in it.
            return []
        # 0 is a process that is not in our pid namespace: none of ours.
        return [int(pid) for pid in data.split() if pid != b"0"]


def processes() -> dict[int, Row]:
    """Every process here but pid 1; zombies are left out."""
    table = {}
    for name in os.listdir(PROC):
        if not name.isdecimal() or name == "1":
            continue
        fields = stat_of(int(name))
        if len(fields) > 19 and fields[0] not in (b"Z", b"X"):
            table[int(name)] = (int(fields[1]), int(fields[19]), int(fields[3]))
    return table


def is_stopped(pid: int) -> bool:
    """Whether a process stands still, as somebody stopped it."""
    return stat_of(pid)[:1] in ([b"T"], [b"t"])


def stat_of(pid: int) -> list[bytes]:
    """What /proc/<pid>/stat says, from the state on; nothing of one that is gone."""
    # The name in brackets may hold anything, so fields are counted from its end.
    return read_of(pid, "stat").rpartition(b")")[2].split()


def read_of(pid: int, name: str, most: int = 1 << 18) -> bytes:
    """A file of a process in /proc; empty when it cannot be read."""
    try:
        descriptor = os.open(f"{PROC}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, most)
        finally:
            os.close(descriptor)
    except OSError:
        return b""
