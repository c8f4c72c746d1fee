"""Reads what control groups count, and writes their limits. Groups that are gone read as 0."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from services.executor.ending import Usage
from services.executor.record import Limits

_CPU_PERIOD_US: Final = 100_000


def usage_v1(path: str, controllers: frozenset[str]) -> Usage:
    """Of a group in a hierarchy of version 1."""
    found: dict[str, int] = {}
    if "memory" in controllers:
        found["oom_kills"] = field(f"{path}/memory.oom_control", "oom_kill")
        found["peak_bytes"] = number(f"{path}/memory.max_usage_in_bytes")
    if "cpuacct" in controllers:
        found["cpu_us"] = number(f"{path}/cpuacct.usage") // 1000
    if "pids" in controllers:
        found["forks_refused"] = field(f"{path}/pids.events", "max")
        found["peak_processes"] = number(f"{path}/pids.peak")
    return Usage(**found)


def usage_v2(path: str) -> Usage:
    """Of a group in the hierarchy of version 2."""
    reads, writes = _io(path)
    return Usage(
        oom_kills=field(f"{path}/memory.events", "oom_kill"),
        peak_bytes=number(f"{path}/memory.peak"),
        cpu_us=field(f"{path}/cpu.stat", "usage_usec"),
        forks_refused=field(f"{path}/pids.events", "max"),
        peak_processes=number(f"{path}/pids.peak"),
        read_bytes=reads,
        written_bytes=writes,
    )


def now(path: str) -> Usage:
    """What a group holds at the moment."""
    memory = number(f"{path}/memory.current") or number(f"{path}/memory.usage_in_bytes")
    return Usage(memory_bytes=memory, processes=number(f"{path}/pids.current"))


def together(usages: Iterable[Usage]) -> Usage:
    """What groups of the same processes in several hierarchies tell; each tells another part."""
    found = tuple(usages)
    names = Usage.__slots__
    return Usage(
        **{name: max((getattr(each, name) for each in found), default=0) for name in names}
    )


def limit(paths: Iterable[str], limits: Limits) -> None:
    """Limit groups, each as far as it can. Raises OSError."""
    for path in paths:
        for file, value in _settings(path, limits):
            with suppress(FileNotFoundError):
                _write(f"{path}/{file}", value)


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _settings(path: str, limits: Limits) -> Iterator[tuple[str, str]]:
    """Files, and what to write; those that a group does not have are of other hierarchies."""
    if limits.memory_bytes:
        yield "memory.limit_in_bytes", str(limits.memory_bytes)
        yield "memory.memsw.limit_in_bytes", str(limits.memory_bytes)
        yield "memory.max", str(limits.memory_bytes)
        yield "memory.swap.max", "0"
    if limits.processes:
        yield "pids.max", str(limits.processes)
    if limits.milli_cpus:
        quota = limits.milli_cpus * _CPU_PERIOD_US // 1000
        # In version 1 a group may not be allowed more than the one above it.
        above = number(f"{Path(path).parent}/cpu.cfs_quota_us")
        yield "cpu.cfs_quota_us", str(max(1000, min(quota, above or quota)))
        yield "cpu.max", f"{max(1000, quota)} {_CPU_PERIOD_US}"


def _io(path: str) -> tuple[int, int]:
    """Bytes read and written, where the controller is there."""
    sums = {"rbytes": 0, "wbytes": 0}
    for line in read(f"{path}/io.stat").splitlines():
        for word in line.split()[1:]:
            name, _, value = word.partition("=")
            if name in sums and value.isdecimal():
                sums[name] += int(value)
    return sums["rbytes"], sums["wbytes"]


def read(path: str) -> str:
    """A small file of the kernel's; empty when it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        pieces = iter(lambda: os.read(descriptor, 65536), b"")
        return b"".join(pieces).decode()
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def number(path: str) -> int:
    text = read(path).strip()
    return int(text) if text.isdecimal() else 0


def field(path: str, name: str) -> int:
    """The number behind a name."""
    for line in read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0
