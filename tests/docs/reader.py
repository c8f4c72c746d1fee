"""A reader who types what a page says, in a machine of their own: network, processes, home."""

import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.docs.answers import answers
from tests.docs.pages import ROOT, Step
from tests.support.repository import make_repository

_BOUND: Final = 120.0
"""Seconds for a step."""

_END: Final = 30.0
"""Seconds for the end of all that a page started."""

_POLL: Final = 0.02
_MANIFESTS: Final = ("requirements.lock", "pyproject.toml", "sdk/pyproject.toml")
_CHECKOUT: Final = ("Makefile", "README.md", ".gitignore", *_MANIFESTS)

_BACKGROUND: Final = re.compile(r" &(\s|$)")

_SUITE: Final = Step(text="cove up 2> ~/cove-up.log &\n", line=0, answer='{"...": ""}', json=True)

_LOOPBACK_UP: Final = (
    "import fcntl, socket, struct;"
    'fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x41))'  # SIOCSIFFLAGS
)


class WrongPage(AssertionError):
    """Something else came back than the page says."""


class Reader:
    """One shell, from the first line of a page to its last."""

    def __init__(self, shell: "subprocess.Popen[bytes]", told: int, tell: int, home: Path) -> None:
        self._shell = shell
        self._told = told
        self._tell = tell
        self._home = home
        self._typed = 0
        self._say(f"""set -E; trap 'echo "$BASH_COMMAND: status $?" >&{tell}' ERR""")

    def type(self, step: Step) -> None:
        """Do one step; what is left in the background has time to answer. Raises `WrongPage`."""
        self._typed += 1
        typed, came = (self._home / f".{kind}-{self._typed}" for kind in ("typed", "came"))
        typed.write_text(step.text)
        self._say(f". {typed} > {came} 2>&1 < /dev/null; echo ended >&{self._tell}")
        wrong = self._failures(step)
        end = time.monotonic() + (_BOUND if _BACKGROUND.search(step.text) else 0)
        while not wrong and step.answer is not None:
            if answers(step.answer, came.read_text(), as_json=step.json):
                break
            if time.monotonic() > end:
                wrong = f"The page says:\n{step.answer}"
            time.sleep(_POLL)
        if wrong:
            raise WrongPage(f"Line {step.line}:\n{step.text}\n{wrong}\nCame:\n{came.read_text()}")

    def leave(self) -> None:
        """End what was started as it wants to be ended, and then whatever is left."""
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self._say("trap - ERR; kill $(jobs -p) 2> /dev/null; wait; exit")
            self._shell.wait(_END)
        self._shell.kill()

    def _say(self, text: str) -> None:
        assert self._shell.stdin
        self._shell.stdin.write(f"{text}\n".encode())
        self._shell.stdin.flush()

    def _failures(self, step: Step) -> str:
        """What failed until the step has ended."""
        told, end = b"", time.monotonic() + _BOUND
        while not told.endswith(b"ended\n"):
            more = b""
            if select.select([self._told], [], [], max(0, end - time.monotonic()))[0]:
                more = os.read(self._told, 4096)
            if not more:
                raise WrongPage(f"Line {step.line}:\n{step.text}\nNot over in {_BOUND:.0f} s.")
            told += more
        return told.decode().removesuffix("ended\n")


@contextmanager
def reading(*, suite_runs: bool) -> Iterator[Reader]:
    """A reader in a checkout of their own; with a suite that runs already, or not."""
    home = Path(tempfile.mkdtemp(prefix="cv-", dir="/tmp"))
    told, tell = os.pipe()
    try:
        _check_out(home / "cove")
        env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "COVE_STATE": str(home / ".local/state/cove"),  # That of root is in no home.
            "PYTHON": "false",  # `make setup` has nothing to do, and is to try nothing.
        }
        with subprocess.Popen(
            _alone(["bash", "--noprofile", "--norc"]),
            stdin=subprocess.PIPE,
            env=env,
            cwd=home / "cove",
            pass_fds=[tell],
        ) as shell:
            reader = Reader(shell, told, tell, home)
            try:
                if suite_runs:
                    reader.type(_SUITE)
                yield reader
            finally:
                reader.leave()
    finally:
        os.close(told)
        os.close(tell)
        shutil.rmtree(home)


def _check_out(folder: Path) -> None:
    """What a reader has after `git clone` and `make setup`; enough of it for the pages."""
    make_repository(folder, {name: (ROOT / name).read_text() for name in _CHECKOUT})
    for name in _MANIFESTS:
        os.utime(folder / name, (0, 0))  # Older than what was made of them.
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv" / ".ready").touch()


def _alone(argv: list[str]) -> list[str]:
    """Argv that runs `argv` where every port is free and nothing outlives it."""
    uid, gid = os.getuid(), os.getgid()
    again = [] if uid == 0 else ["unshare", f"--map-user={uid}", f"--map-group={gid}"]
    up = shlex.join([sys.executable, "-c", _LOOPBACK_UP])
    return [
        *("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *([] if uid == 0 else ["--map-root-user"]),
        *("sh", "-c", f"{up} && exec {shlex.join([*again, *argv])}"),
    ]
