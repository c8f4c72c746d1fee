"""What the fuzz works with: the parts of the service in a thread, and one program in a worktree."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from agent import overlay
from agent.inside import plumbing
from services.git.record import Mode
from services.git.remote import Rules
from services.git.workspace import Workspace
from tests.git.fuzz import inside
from tests.git.parts import Parts, parts

_Result = TypeVar("_Result")
_BOUND = 60


class CannotMountError(Exception):
    """No overlay can be had here."""


class Service:
    """Parts of the service, for a test that is not async."""

    def __init__(self, state: Path, mode: Mode | None) -> None:
        self._state = state
        self._mode = mode
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._parts: Parts | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(_BOUND)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_BOUND)
        assert not self._thread.is_alive()

    @property
    def parts(self) -> Parts:
        assert self._parts
        return self._parts

    def call(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Have it done in the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_BOUND)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        rules = Rules(local_roots=[Path("/")], closed=self._state)
        try:
            async with parts(self._state, rules, mode=self._mode) as made:
                self._parts = made
                self._ready.set()
                await self._ended.wait()
        except BaseException as error:
            self._failure = error
            self._ready.set()
            raise


class Program:
    """A program in the sandbox of a worktree, which is mounted as long as the program runs."""

    def __init__(self, workspace: Workspace) -> None:
        spec = _spec(workspace)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", inside.__file__, json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout
        if not self._process.stdout.readline():
            _, said = self._process.communicate()
            if self._process.returncode == inside.CANNOT:
                raise CannotMountError(said.decode())
            raise AssertionError(said.decode())

    def close(self) -> None:
        """End it, and the mount with it."""
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self._process.stdin.close()
        self._process.wait(_BOUND)
        self._process.stdout.close()
        self._process.stderr.close()

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Raises `AssertionError` where stock git fails that must not."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr
            raise AssertionError(self._process.stderr.read().decode())
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer

    def edit(self, do: str, *arguments: bytes | int) -> bool:
        """Whether it could be done."""
        words = [each.decode("latin-1") if isinstance(each, bytes) else each for each in arguments]
        return "failed" not in self.ask(do, **{"with": words})

    def git(self, *steps: list[str]) -> dict[str, Any]:
        return self.ask("git", steps=steps)

    @property
    def paths(self) -> list[bytes]:
        return [path.encode("latin-1") for path in self.ask("paths")["paths"]]


def _spec(workspace: Workspace) -> dict[str, Any]:
    where = workspace.paths
    spec: dict[str, Any] = {
        "objects": str(workspace.repository.objects),
        "outside": str(where.outside),
        "lock": str(where.lock),
        "uid": workspace.cells.sandbox.uid,
        "overlay": overlay.__file__,
        "plumbing": plumbing.__file__,
    }
    if workspace.is_plain:
        return {**spec, "tree": str(where.tree)}
    return {
        **spec,
        "lowers": [str(path) for path in (*where.layers, *where.lowers)],
        "upper": str(where.tree),
        "work": str(where.work),
        "xattrs": workspace.mode.value,
    }
