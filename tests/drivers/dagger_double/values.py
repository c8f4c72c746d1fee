"""What the doubled engine's objects are when they have been evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LAYERS = 440
"""As many as the kernel mounts, about."""


class EngineError(Exception):
    """An entry of `errors` in an answer."""

    def __init__(self, message: str, **extensions: object) -> None:
        super().__init__(message)
        self.extensions = extensions


@dataclass(frozen=True)
class Container:
    root: Path | None = None
    """Its snapshot: never changed once it is made."""
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = ""
    layers: int = 0
    image: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Variables, and names of secrets of the session."""
    code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True)
class Directory:
    root: Path | None = None
    """The directory itself, in some snapshot or elsewhere."""
    layers: int = 0


@dataclass(frozen=True)
class File:
    path: Path


@dataclass(frozen=True)
class Changeset:
    before: Path | None
    after: Path | None
    added: tuple[str, ...]
    modified: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class Secret:
    name: str


@dataclass(frozen=True)
class Plain:
    """Of a type that has no state."""

    kind: str
