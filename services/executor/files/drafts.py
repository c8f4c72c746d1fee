"""Remembers drafts of files on disk, so that what a killed executor left is removed.

A note beside the executions of an environment, `.draft-<name>`, holds the path of one draft, or of
the directory into which an archive is unpacked.
Whoever writes the draft holds the note's flock, which a kill gives back.
"""

import asyncio
import fcntl
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.client import AgentError, PeerGone, PeerTooOld
from services.executor.agents import Agents
from services.executor.store import Store

_NOTE: Final = ".draft-"
_LOOK_AGAIN: Final = 30.0
"""Seconds between two tries to remove what is in a dormant environment."""


@dataclass(frozen=True, slots=True)
class Note:
    """Of one draft. Held by its maker until `Drafts.forget`."""

    path: Path
    lock: int


class Drafts:
    """The notes of a node."""

    def __init__(self, store: Store, agents: Agents) -> None:
        self._store = store
        self._agents = agents

    def note(self, uid: str, path: bytes) -> Note:
        """Call before a draft is made at `path`. Raises OSError."""
        folder = self._store.environment(uid)
        folder.mkdir(mode=0o700, exist_ok=True)
        note = folder / f"{_NOTE}{secrets.token_hex(8)}"
        lock = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.write(lock, path)
        except OSError:
            os.close(lock)
            raise
        return Note(note, lock)

    def forget(self, note: Note, *, gone: bool = True) -> None:
        """Give it up. One whose draft is not `gone` is left for the next executor."""
        if gone:
            note.path.unlink(missing_ok=True)
        os.close(note.lock)

    async def run(self) -> None:
        """Remove what earlier executors left, as soon as each environment is in use."""
        left = await asyncio.to_thread(self._left)
        while left:
            left = [each for each in left if not await self._removed(*each)]
            await asyncio.sleep(_LOOK_AGAIN)

    def _left(self) -> list[tuple[str, Path]]:
        return [
            (uid, note)
            for uid in self._store.environments()
            for note in self._store.environment(uid).glob(f"{_NOTE}*")
            if not _held(note)
        ]

    async def _removed(self, uid: str, note: Path) -> bool:
        """Remove one draft; false when its environment sleeps."""
        try:
            path = await asyncio.to_thread(note.read_bytes)
            if path and self._agents.active(uid):
                async with self._agents.link(uid) as agent:
                    with suppress(AgentError):  # It had its name already, or was not made yet.
                        await agent.remove(path, recursive=True)
            elif path:
                return False
        except FileNotFoundError:  # Its environment was removed, or another executor was here.
            return True
        except (PeerGone, PeerTooOld):
            return False
        await asyncio.to_thread(note.unlink, missing_ok=True)
        return True


def _held(note: Path) -> bool:
    """Whether its maker lives."""
    try:
        descriptor = os.open(note, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
