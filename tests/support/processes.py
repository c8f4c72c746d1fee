"""What runs on this host."""

from pathlib import Path


def named(name: str) -> list[int]:
    """Pids on the host of what runs under that name."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (entry / "cmdline").read_bytes().split(b"\0")[0] == name.encode():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
