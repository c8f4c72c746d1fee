"""Secrets of commands: what callers send, and what the operator keeps in files."""

import asyncio
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from servicekit.errors import InvalidArgument
from services.executor.errors import SecretNotFound
from services.executor.record import Spec

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_TENANT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,127}")
_LONGEST: Final = 32768
_OURS: Final = "COVE_EXECUTION_ID"
"""By which the processes of an execution are found."""
_REDACTED: Final = range(4, 4097)
"""Bytes of a value that can be found in output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """What a command has in its environment beside what its spec says. Never kept on disk."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Of the environment, under those of the spec."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By name; empty where the operator keeps it."""
    tenant: str = ""
    handle: bytes = b""
    """That the caller has of the environment."""
    disk_bytes: int = 0
    """Limit of the environment's disk; 0 is none."""
    open_files: int = 0
    """Limit of the environment, for each process; 0 is none."""


class Secrets:
    """Those that the operator keeps: files `<root>/<tenant>/<name>`, of nobody else to read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def complete(self, spec: Spec, given: Variables) -> Variables:
        """With a value for each secret of the spec. Raises SecretNotFound, InvalidArgument."""
        if not spec.secrets:
            return given
        if _OURS in spec.secrets:
            raise InvalidArgument("spec.secrets", f"{_OURS} is no name of a secret")
        found = {name: given.secrets.get(name, "") for name in spec.secrets}
        for name in [name for name, value in found.items() if not value]:
            found[name] = await asyncio.to_thread(self._read, given.tenant, name)
        for name, value in found.items():
            if spec.redact and len(value.encode()) not in _REDACTED:
                raise InvalidArgument(
                    "spec.redact", "a value is too short or too long to be found", secret=name
                )
        return replace(given, secrets=found)

    def _read(self, tenant: str, name: str) -> str:
        """One newline at the end is not of the value."""
        refused = SecretNotFound("the secret has no value", secret=name)
        if not (_NAME.fullmatch(name) and _TENANT.fullmatch(tenant)):
            raise refused
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._root / tenant / name, flags)
        except OSError:
            raise refused from None
        try:
            mode = os.fstat(descriptor).st_mode
            data = os.read(descriptor, _LONGEST + 2) if stat.S_ISREG(mode) else b""
        finally:
            os.close(descriptor)
        if mode & 0o077:
            raise SecretNotFound("the secret's file is open to others; chmod 0600", secret=name)
        try:
            value = data.removesuffix(b"\n").decode()
        except UnicodeDecodeError:
            raise refused from None
        if not value or len(data) > _LONGEST + 1 or "\0" in value:
            raise refused
        return value
