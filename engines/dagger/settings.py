"""Settings of the process that speaks to engines, from variables `COVE_DAGGER__<NAME>`."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from engines.dagger.errors import EngineUnavailable

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_SCHEMES: Final = (
    "unix://",
    "tcp://",
    "tls://",
    "ssh://",
    "kube-pod://",
    "container://",
    "image://",
)
_CLI: Final = "_EXPERIMENTAL_DAGGER_CLI_BIN"
_HOST: Final = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How engines are reached, and how long things may last. Times are seconds."""

    state: Path
    """Directory of this process, below the node's state directory."""
    runtime: Path
    node: str
    engines: Mapping[str, str] = field(default_factory=dict)
    """Addresses by name, as the CLI takes them; the first is used where none is asked for."""
    cli: Path | None = None
    """The `dagger` executable."""
    start: float = 60.0
    """A session that is not there by then is given up; the CLI alone would try for 10 minutes."""
    sessions: int = 2
    """Of one engine at most, each for so many calls at once as `calls` says."""
    calls: int = 48
    operations: int = 500
    """After so many calls a session is replaced: it pins whatever it was ever given."""
    age: float = 1800.0
    """As `operations`, by time."""
    generations: int = 100
    """Layers after which an environment is made anew, well below the 440 that can be mounted."""
    image: str = ""
    """What environments stand on whose spec names no image: a reference, or a path of a tar."""

    @classmethod
    def from_env(cls, env: Mapping[str, str], state: Path, runtime: Path, node: str) -> Self:
        """Raises ValueError, which names the variable."""
        engines = _engines(env.get("COVE_DAGGER__ENGINES", ""))
        if not engines and env.get(_HOST):
            engines = {"main": _address(_HOST, env[_HOST])}
        cli = env.get(_CLI) or shutil.which("dagger", path=env.get("PATH", os.defpath))
        return cls(
            state=state,
            runtime=runtime,
            node=node,
            engines=engines,
            cli=Path(cli) if cli else None,
            image=env.get("COVE_DAGGER__IMAGE", ""),
            generations=_number(env, "COVE_DAGGER__GENERATIONS", 100, 2, 400),
            operations=_number(env, "COVE_DAGGER__SESSION_OPERATIONS", 500, 1, 1_000_000),
            age=_number(env, "COVE_DAGGER__SESSION_AGE", 1800, 1, 86400),
            start=_number(env, "COVE_DAGGER__START_TIMEOUT", 60, 1, 600),
        )

    def usable(self) -> Path:
        """The CLI. Raises EngineUnavailable, with what to do about it."""
        if not self.engines:
            raise EngineUnavailable(
                "no Dagger engine is configured",
                "Set COVE_DAGGER__ENGINES, for example main=unix:///run/dagger/engine.sock.",
            )
        if self.cli is None or not os.access(self.cli, os.X_OK):
            raise EngineUnavailable(
                "there is no Dagger CLI",
                f"Put `dagger` of the engine's version on PATH, or name it in {_CLI}.",
            )
        return self.cli


def _engines(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, equals, address = part.partition("=")
        if not (equals and _NAME.fullmatch(name)) or name in found:
            raise ValueError(f"COVE_DAGGER__ENGINES: not name=address, or named twice: {part}")
        found[name] = _address("COVE_DAGGER__ENGINES", address)
    return found


def _address(variable: str, address: str) -> str:
    if not address.startswith(_SCHEMES):
        raise ValueError(f"{variable}: not one of {', '.join(_SCHEMES)}: {address}")
    return address


def _number(env: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"{name}: not a whole number from {least} to {most}")
    return int(text)
