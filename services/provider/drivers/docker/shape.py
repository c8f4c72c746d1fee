"""What a container is made like: the words of the Engine API."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent import DOOR, FEWEST_PROCESSES, MOST_PREPARED, SANDBOX_UID, bringing
from agent.egress import PORT
from agent.protocol import SandboxSpec
from services.provider.driver import Limits, Network

_AGENT_ITSELF: Final = 1
_PERIOD_US: Final = 100_000
_LEAST_US: Final = 1000
"""The kernel takes no less, which is a hundredth of a processor."""
_NOT_FROM_THE_IMAGE: Final = ("LD_AUDIT=", "LD_LIBRARY_PATH=", "LD_PRELOAD=")
"""What the loader of our agent would heed."""
_ALONE: Final = {
    "NetworkMode": "none",
    "IpcMode": "private",
    "CgroupnsMode": "private",
    "Privileged": False,
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
    "RestartPolicy": {"Name": "no"},
    "LogConfig": {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "1"}},
    "Init": False,
}
"""Of every container of ours."""
_SETUP_CAPABILITIES: Final = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP", "SETGID", "SETUID"),
)
_SETUP_ENV: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
}
_PROXIES: Final = tuple(
    spelled
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    for spelled in (name, name.lower())
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a container is made of, beside what every sandbox is."""

    image: str
    library: Path
    """What `agent.bringing` made."""
    users: Path
    """A folder with the lists `passwd` and `group`."""
    runtime: str = ""
    """Of the engine's; empty is its own choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Building:
    """What is to become of an image, and within which bounds."""

    setup: tuple[str, ...]
    limits: Limits
    network: Network


def config(
    spec: SandboxSpec, made: Made, labels: Mapping[str, str], volume: str, door: Path
) -> dict[str, Any]:
    """A request that makes the container. It has no capability, no network and no way to more."""
    idle = str(int(spec.idle_timeout_seconds * 1000))
    limits = spec.limits
    prepared = MOST_PREPARED * (limits.pids >= FEWEST_PROCESSES)
    processes = limits.pids + _AGENT_ITSELF + prepared if limits.pids else None
    mounts = [*_folders(spec, volume), *_files(made, door)]
    mounts += [_bind(each.source, each.target, writable=each.writable) for each in spec.mounts]
    return {
        "Image": made.image,
        # No limit of processes by user: it would count those of every container.
        "Entrypoint": bringing.argv(idle, str(limits.pids), "1", spec.uid),
        "Cmd": [],
        "User": f"{SANDBOX_UID}:{SANDBOX_UID}",
        "WorkingDir": "/",
        "Hostname": "cove",
        "Env": list(_NOT_FROM_THE_IMAGE),
        "Labels": dict(labels),
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["NONE"]},
        "NetworkDisabled": True,
        "HostConfig": {
            **_ALONE,
            "ReadonlyRootfs": True,
            "Memory": limits.memory_bytes,
            "MemorySwap": limits.memory_bytes,
            **_processors(limits.cpu_millis),
            "PidsLimit": processes,
            "ShmSize": spec.shm_bytes,
            "Mounts": mounts,
            **({"Runtime": made.runtime} if made.runtime else {}),
        },
    }


def setup_config(
    wanted: Building, made: Made, labels: Mapping[str, str], door: Path
) -> dict[str, Any]:
    """A request for a container that becomes an image: root runs scripts in it, and may write.

    It has no network either, and of root's capabilities those that packages are installed with.
    """
    limits = wanted.limits
    port = PORT if wanted.network.rules else 0
    env = [f"{name}={value}" for name, value in _SETUP_ENV.items()]
    env += [f"{name}=http://127.0.0.1:{port}" for name in _PROXIES if port]
    return {
        "Image": made.image,
        "Entrypoint": bringing.argv(str(port), *wanted.setup, module="setup"),
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        "Hostname": "cove",
        "Env": [*_NOT_FROM_THE_IMAGE, *env],
        "Labels": dict(labels),
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["NONE"]},
        "NetworkDisabled": True,
        "HostConfig": {
            **_ALONE,
            "ReadonlyRootfs": False,
            "CapAdd": list(_SETUP_CAPABILITIES),
            "Memory": limits.memory_bytes,
            "MemorySwap": limits.memory_bytes,
            **_processors(limits.milli_cpus),
            "PidsLimit": limits.processes or None,
            "Mounts": _ours(made, door),
            **({"Runtime": made.runtime} if made.runtime else {}),
        },
    }


def _processors(millis: int) -> dict[str, int]:
    """As a quota: as a number of processors an engine refuses more than there are."""
    if not millis:
        return {}
    return {"CpuPeriod": _PERIOD_US, "CpuQuota": max(_LEAST_US, millis * _PERIOD_US // 1000)}


def _folders(spec: SandboxSpec, volume: str) -> list[dict[str, Any]]:
    if spec.overlay:
        workspace = {
            "Type": "volume",
            "Source": volume,
            "Target": "/workspace",
            "VolumeOptions": {"NoCopy": True},
        }
    else:
        workspace = _bind(spec.worktree, "/workspace", writable=True)
    return [
        workspace,
        _bind(spec.home, "/home/cove", writable=True),
        _bind(spec.tmp, "/tmp", writable=True),  # noqa: S108 - the name of it inside.
        _bind(spec.tmp, "/var/tmp", writable=True),  # noqa: S108
    ]


def _files(made: Made, door: Path) -> list[dict[str, Any]]:
    users = [_bind(str(made.users / name), f"/etc/{name}") for name in ("passwd", "group")]
    return [*users, *_ours(made, door)]


def _ours(made: Made, door: Path) -> list[dict[str, Any]]:
    # Nothing can be done to a socket over a read-only mount but to connect to it.
    return [_bind(str(made.library), bringing.INSIDE), _bind(str(door), DOOR)]


def _bind(source: str, target: str, *, writable: bool = False) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": not writable,
        "BindOptions": {"Propagation": "rprivate"},
    }
