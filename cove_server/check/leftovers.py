"""What processes that were killed left: half-written files, mounts, control groups, sandboxes."""

import ctypes
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from agent.handle import valid_uid
from agent.launcher.cgroups import group_name
from agent.launcher_client import LauncherClient, PeerGone, PeerTooOld
from cove_server.admin.moving import MAKING
from cove_server.check.aside import Aside, remove
from cove_server.check.finding import Finding
from cove_server.check.node import HIDDEN, Node
from cove_server.places import Places

_PATTERNS: Final = (
    *(".restore.json.new", "*.new", "registry/.token.*"),
    *("git/layers/.*", "git/worktrees/.*", "git/worktrees/*/.*", "git/worktrees/*/outside/.*"),
    "git/kept/.*",
    *("git/repositories/*/.*", "git/repositories/*/*.git/.*"),
    *("git/checkouts/.*", "git/checkouts/*/.*", "git/checkouts/*/*/.*"),
    *("provider/environments/*/record.new", "executor/executions/.*", "executor/executions/*/.*"),
)
_UNFINISHED: Final = re.compile(r"\.(new|dead)-[0-9a-f]{16}|\.token\.[0-9a-f]{16}")
_DETACH: Final = 2


def leftovers(node: Node) -> Iterator[Finding]:
    """Half-written and half-removed files. While the suite runs they are its own affair."""
    for pattern in _PATTERNS:
        for path in sorted(node.state.glob(pattern)):
            name = path.name
            sure = name.endswith(".new") or HIDDEN.fullmatch(name) or _UNFINISHED.fullmatch(name)
            if not sure and not (path.parent.name == "layers" and name.startswith(".")):
                continue
            if name == MAKING and (node.state / "restore.json").exists():
                continue
            subject = str(path.relative_to(node.state))
            found = "left by a process that was killed"
            yield Finding("leftover", subject, found, _removing(path))


def strays(node: Node, aside: Aside) -> Iterator[Finding]:
    """What has a name among environments that none can have."""
    for home in ("git/worktrees", "provider/environments", "executor/executions"):
        folder = node.state / home
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = path.name
            if not valid_uid(name) and not name.startswith("."):
                yield Finding(
                    "stray", f"{home}/{name}", "no environment can have that name",
                    _moving(aside, f"{home}/{name}"),
                )  # fmt: skip


def mounts(node: Node) -> Iterator[Finding]:
    """Of the host, below the state directory: sandboxes have theirs in namespaces of their own."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        point = Path(line.split()[4].encode().decode("unicode_escape"))
        if node.state in point.parents:
            subject = str(point.relative_to(node.state))
            yield Finding("mount", subject, "mounted on the host", _unmounting(point))


async def sandboxes(node: Node, places: Places) -> list[Finding]:
    """Of a launcher that runs; those of one that does not are taken over by the next one."""
    try:
        async with LauncherClient.connect(places.socket("launcher")) as launcher:
            found = [each.uid for each in await launcher.list()]
    except (PeerGone, PeerTooOld):
        return []
    unknown = [each for each in found if valid_uid(each) and each not in node.environments]
    return [
        Finding("sandbox-unknown", uid, "runs, and is of no environment", _killing(places, uid))
        for uid in unknown
    ]


def groups(places: Places) -> Iterator[Finding]:
    """Control groups without a process, of a launcher that does not run."""
    name = group_name(places.runtime)
    for root in hierarchies():
        for base in _below(root, name):
            for group in sorted(base.iterdir()):
                if group.is_dir() and valid_uid(group.name) and not _processes(group):
                    yield Finding("cgroup", str(group), "has no process", _emptying(group))


def hierarchies() -> Iterator[Path]:
    """Where control groups are mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] in ("cgroup", "cgroup2"):
            yield Path(fields[4])


def _below(root: Path, name: str) -> Iterator[Path]:
    for folder, names, _ in os.walk(root):
        if name in names:
            yield Path(folder) / name
            names.remove(name)


def _processes(group: Path) -> bool:
    return any(
        (Path(folder) / "cgroup.procs").read_text().strip() for folder, _, _ in os.walk(group)
    )


def _removing(path: Path) -> Callable[[], Awaitable[str]]:
    async def mend() -> str:
        return remove(path)

    return mend


def _moving(aside: Aside, path: str) -> Callable[[], Awaitable[str]]:
    async def mend() -> str:
        return aside.move(path, "strays", f"{path}: no environment can have that name")

    return mend


def _unmounting(point: Path) -> Callable[[], Awaitable[str]]:
    async def mend() -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(point), _DETACH) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(point))
        return "unmounted"

    return mend


def _killing(places: Places, uid: str) -> Callable[[], Awaitable[str]]:
    async def mend() -> str:
        async with LauncherClient.connect(places.socket("launcher")) as launcher:
            await launcher.kill(uid)
        return "ended; its files are as they were"

    return mend


def _emptying(group: Path) -> Callable[[], Awaitable[str]]:
    async def mend() -> str:
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)  # noqa: PTH106 - as os.walk has it.
        return "removed"

    return mend
