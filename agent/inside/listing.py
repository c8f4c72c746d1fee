"""What is alive of executions, for a client. Bounded, whatever runs."""

import os
import time
from _collections_abc import Iterable

from agent.inside import tree
from agent.inside.execution import Execution

_MOST = 1000
"""Processes in one answer."""
_MOST_EACH = 100
_MOST_COMMAND = 256


def executions(found: Iterable[Execution]) -> list[bytes | int]:
    """For each: id, whether it has ended, pid, when it began, bytes of output."""
    return [
        field
        for each in found
        for field in (each.id, int(each.ended), each.pid, each.start_ns, each.log.offset)
    ]


def alive(found: Iterable[Execution]) -> list[bytes | int]:
    """For each that has processes: id, how many, how many are told of, and those."""
    table = tree.Table()
    told: list[bytes | int] = []
    left = _MOST
    for each in found:
        if each.tree.closed:
            continue
        members = each.tree.members(table)
        rows = [row for pid in members[: min(left, _MOST_EACH)] if (row := _row(pid))]
        left -= len(rows)
        if members:
            told += [each.id, len(members), len(rows)]
            told += [field for row in rows for field in row]
    return told


def _row(pid: int) -> tuple[bytes | int, ...] | None:
    """Pid, state, bytes of memory, when it began in ns since 1970, arguments."""
    fields = tree.stat_of(pid)
    if len(fields) < 22:
        return None
    command = tree.read_of(pid, "cmdline", _MOST_COMMAND)
    if not command:  # It has emptied its arguments, or has none yet.
        command = tree.read_of(pid, "comm", _MOST_COMMAND).strip()
    ticks = int(fields[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    booted = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    memory = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return pid, fields[0], memory, booted + ticks, command
