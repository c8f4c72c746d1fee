"""What a node holds of environments that have no record."""

import os
import re
import subprocess
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_UID: Final = 16
_OWN: Final = re.compile(r"/own-[a-z2-7]{16}")


def left_over(
    state: Path, runtime: Path, ever: Collection[str], known: Collection[str]
) -> set[str]:
    """Whatever is there of a uid that is not `known`. `ever` has all uids that were."""
    gone = set(ever) - set(known)
    return {
        *_directories(state, runtime, known),
        *_layers(state),
        *_refs(state, known),
        *_repositories(state, known),
        *(f"{where} of {uid}" for where, text in _host() for uid in gone if uid in text),
    }


def _directories(state: Path, runtime: Path, known: Collection[str]) -> Iterator[str]:
    places = (
        state / "git" / "worktrees",
        state / "provider" / "environments",
        state / "executor" / "executions",
        runtime / "a",
    )
    for place in places:
        for path in place.glob("*"):
            if path.name.removesuffix(".lock") not in known:
                yield str(path)


def _layers(state: Path) -> Iterator[str]:
    """Those that no record of a worktree names."""
    records = ""
    for path in (state / "git" / "worktrees").glob("*/record.json"):
        with suppress(FileNotFoundError):  # A worktree goes just then.
            records += path.read_text()
    for path in (state / "git" / "layers").glob("*"):
        if path.name != "empty" and path.name not in records:
            yield str(path)


def _refs(state: Path, known: Collection[str]) -> Iterator[str]:
    for repository in (state / "git" / "repositories").glob("*/*.git"):
        command = ["git", "-c", "safe.directory=*", f"--git-dir={repository}", "for-each-ref"]
        command += ["--format=%(refname)", "refs/cove", "refs/notes"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        for ref in done.stdout.split():
            if not any(uid in ref for uid in known):
                yield f"{repository.name} {ref}"


def _repositories(state: Path, known: Collection[str]) -> Iterator[str]:
    """Those without an origin: nobody can have them again when no worktree is left."""
    if not known:
        yield from map(str, (state / "git" / "repositories").glob("*/own-*"))


def of_a_suite(runtime: Path) -> set[str]:
    """What is there of a suite that was stopped."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if str(runtime).encode() in said:
                found.add(f"process {process.name} {said[:200]!r}")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return found | {mount for mount in mounts if str(runtime) in mount}


def _host() -> Iterator[tuple[str, str]]:
    """Command lines and mounts of all processes, and names of control groups."""
    seen = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            within = (process / "cgroup").read_text()
            yield f"process {process.name} {line[:200]}", line + within
        with suppress(OSError):
            namespace = (process / "ns" / "mnt").readlink()
            if namespace not in seen:
                seen.add(namespace)
                for mount in (process / "mountinfo").read_text().splitlines():
                    # A repository is named after its first worktree, and outlives that.
                    yield f"mount of {process.name}: {mount[:200]}", _OWN.sub("", mount)
    for parent, groups, _ in os.walk("/sys/fs/cgroup"):  # Passes over what ends meanwhile.
        yield from ((f"group {parent}/{group}", group) for group in groups if len(group) == _UID)
