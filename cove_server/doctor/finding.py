"""What a look at one thing found."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SYSTEM_PATH: Final = "/usr/bin:/bin"
"""Where cells look for programs, whatever the PATH of who asks."""


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    """Workspaces can be made, but something is weaker than it could be."""
    FAIL = "fail"
    """Without it no workspace can be made."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    found: str
    remedy: str = ""
    """The command that gives what is missing, or what else to do."""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Level.OK, found)


def warn(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Level.WARN, found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Level.FAIL, found, remedy)


_INSTALLERS: Final[Mapping[str, str]] = {
    "apt-get": "apt-get install",
    "dnf": "dnf install",
    "zypper": "zypper install",
    "apk": "apk add",
    "pacman": "pacman -S",
}
_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "ssh": {"apt-get": "openssh-client", "dnf": "openssh-clients", "zypper": "openssh-clients"},
}


def install(package: str) -> str:
    """The command that installs a package of the system."""
    for program, command in _INSTALLERS.items():
        if shutil.which(program):
            name = _NAMES.get(package, {}).get(program, "openssh" if package == "ssh" else package)
            return f"{command} {name}"
    return f"install {package} with the package manager of the system"
