"""What processes use, as /proc tells: where no control group counts."""

import os
from pathlib import Path
from typing import Final, NamedTuple

from services.executor.ending import Usage

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MARK: Final = b"COVE_EXECUTION_ID="


class _Process(NamedTuple):
    parent: int
    ticks: int
    threads: int
    pages: int


def began(pid: int) -> int:
    """Tells a process from a later one of the same pid; 0 when there is none."""
    fields = _fields(pid)
    return int(fields[19]) if len(fields) > 19 else 0


def usage(agent: int, key: str = "") -> Usage:
    """Of all below an agent, or of those of one execution, and what they have waited for."""
    table = {int(name): each for name in _names() if (each := _process(name))}
    children: dict[int, list[int]] = {}
    for pid, each in table.items():
        children.setdefault(each.parent, []).append(pid)
    mark = _MARK + key.encode()
    found: set[int] = set()
    todo = [(pid, False) for pid in children.get(agent, ())]
    for pid, inside in todo:
        own = inside or not key or mark in _read(f"/proc/{pid}/environ").split(b"\0")
        if own:
            found.add(pid)
        todo += [(child, own) for child in children.get(pid, ())]
    return Usage(
        cpu_us=sum(table[pid].ticks for pid in found) * 1_000_000 // _TICKS,
        memory_bytes=sum(table[pid].pages for pid in found) * _PAGE,
        processes=sum(table[pid].threads for pid in found),
    )


def _names() -> list[str]:
    return [each.name for each in Path("/proc").iterdir()]


def _process(name: str) -> _Process | None:
    if not name.isdecimal():
        return None
    fields = _fields(int(name))
    if len(fields) < 22:
        return None
    parent, threads, pages = int(fields[1]), int(fields[17]), int(fields[21])
    return _Process(parent, sum(map(int, fields[11:15])), threads, pages)


def _fields(pid: int) -> list[bytes]:
    """What stands behind the name, which may hold anything."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 18)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
