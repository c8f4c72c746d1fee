"""The program in a worktree's sandbox: what it sees and does is really mounted."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent import SANDBOX_UID
from services.git.workspace import Workspace
from tests.git import mounted

_SOURCE = Path(__file__).parents[2]


class Program:
    """A process in a mount namespace of its own, where the worktree is at /workspace."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        """`spec` is what mounted.py is told, but for who runs it."""
        whole = {"source": str(_SOURCE), "uid": SANDBOX_UID, "gid": SANDBOX_UID, **spec}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", mounted.__file__, json.dumps(whole)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self._plain: Path | None = None
        if self._process.stdout.readline() != "ready\n":
            if self._process.wait() != mounted.CANNOT or spec["xattrs"]:
                raise AssertionError("the worktree cannot be mounted")
            self._plain = Path(spec["upper"])

    @classmethod
    def of(cls, workspace: Workspace) -> "Program":
        """The one of a worktree."""
        paths = workspace.paths
        return cls(
            {
                "xattrs": "" if workspace.is_plain else workspace.mode.value,
                "lowers": [str(path) for path in (*paths.layers, *paths.lowers)],
                "upper": str(paths.tree),
                "work": str(paths.work),
                "objects": str(workspace.repository.objects),
                "outside": str(paths.outside),
                "lock": str(paths.lock),
            }
        )

    @property
    def tree(self) -> Path:
        """The worktree, as it is seen inside."""
        return self._plain or Path(f"/proc/{self._process.pid}/root{mounted.ROOT}/workspace")

    def attempt(self, *argv: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run a command as the sandbox's user: how it ended, what it printed, and as errors."""
        if self._plain:
            pytest.skip("no namespaces here")
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"argv": argv, "stdin": stdin.hex()}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        output, errors = (os.fsdecode(bytes.fromhex(answer[name])) for name in ("out", "err"))
        return int(answer["code"]), output, errors

    def run(self, *argv: str, stdin: bytes = b"") -> str:
        """The same of a command that must not fail."""
        code, output, errors = self.attempt(*argv, stdin=stdin)
        assert code == 0, (argv, output, errors)
        return output

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run git inside; what it prints."""
        return self.run("git", *arguments, stdin=stdin).strip()

    def sh(self, script: str) -> str:
        """Run a script of the shell; what it prints."""
        return self.run("sh", "-euc", script)

    def close(self) -> None:
        """End it, and the mounts with it."""
        self._process.communicate()
