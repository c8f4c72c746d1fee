"""Git as a host would naively use it on a directory that a sandbox can write: the control."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.attacks.git.arena import UNPRIVILEGED, Arena
from tests.attacks.git.attack import Attack

_PATIENCE: Final = 3.0
"""Seconds after which what hangs is taken to hang, where that is what an attack is for."""
_BOUND: Final = 30.0
"""Of everything else, which ends by itself."""
PATH: Final = "/usr/bin:/bin"
_HUNG: Final = 124
_MEMORY: Final = 2 << 20  # KiB.

_COMMANDS: Final[tuple[tuple[str, ...], ...]] = (
    ("status",),
    ("-C", "src", "status"),
    ("diff",),
    ("add", "-A"),
    ("status",),
    ("commit", "-qm", "All"),
    ("commit", "-q", "--amend"),
    ("log", "-p", "-3"),
    ("show",),
    ("fetch", "origin"),
)


@dataclass(frozen=True, slots=True)
class Naive:
    """Plain git in an arena, as a user without rights and with an empty home."""

    arena: Arena
    origin: Path
    """A bare repository that this user can read."""
    variables: Mapping[str, str]
    """Of every script."""

    def hits(self, attack: Attack) -> str:
        """Run the attack and then the host's commands. What was hit and by which; or empty."""
        place = self.arena.plain / "tree"
        try:
            self._clone(place, attack)
            planted = self.run(["sh", "-c", attack.text], place, self.variables)
            assert planted.returncode == 0, planted.stderr.decode(errors="replace")
            self.arena.dropped()
            seconds = _PATIENCE if attack.hits else _BOUND
            for command in (*_COMMANDS, *attack.after):
                done = self.run(["git", *command], place, seconds=seconds)
                if hit := self._hit(done, place):
                    return f"{hit}, by {command[0] if command[0] != '-C' else command[2]}"
            return ""
        finally:
            for name in ("tree", "main"):
                shutil.rmtree(self.arena.plain / name, ignore_errors=True)

    def run(
        self,
        argv: Sequence[str],
        cwd: Path,
        variables: Mapping[str, str] | None = None,
        *,
        seconds: float = _BOUND,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run something as that user; one that does not end has the status of `timeout`."""
        env = {
            "PATH": PATH,
            "HOME": str(self.arena.plain),
            "LC_ALL": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "Host",
            "GIT_AUTHOR_EMAIL": "host@example.org",
            "GIT_COMMITTER_NAME": "Host",
            "GIT_COMMITTER_EMAIL": "host@example.org",
            **(variables or {}),
        }
        bounded = ["timeout", "--kill-after=1", str(seconds)]
        return subprocess.run(
            self.argv([*bounded, *argv]),
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def argv(self, argv: Sequence[str]) -> list[str]:
        """Argv that runs something as that user, with little memory."""
        limited = ["sh", "-c", f'ulimit -v {_MEMORY}; exec "$@"', "sh"]
        return [*_drop(), *limited, *argv]

    def _clone(self, place: Path, attack: Attack) -> None:
        target = self.arena.plain / "main" if attack.worktree else place
        steps = [["git", "clone", "-q", str(self.origin), str(target)]]
        if attack.worktree:
            steps.append(["git", "-C", str(target), "worktree", "add", "-q", str(place)])
        for step in steps:
            done = self.run(step, self.arena.plain)
            assert done.returncode == 0, done.stderr.decode()

    def _hit(self, done: "subprocess.CompletedProcess[bytes]", place: Path) -> str:
        if self.arena.dropped():
            return "code ran or the host was written to"
        found = self.arena.found_in([done.stdout, done.stderr])
        found |= self.arena.stolen_in(place / ".git")
        if found:
            return "got " + ", ".join(sorted(found))
        return "hung" if done.returncode == _HUNG else ""


def _drop() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups", "--"]
