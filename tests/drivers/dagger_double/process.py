"""Starts and ends the doubled engine, for tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[3]


def executable(folder: Path) -> Path:
    """The doubled CLI, as a program of its own."""
    path = folder / "dagger"
    script = Path(__file__).with_name("cli.py")
    path.write_text(
        f'#!/bin/sh\nexec {sys.executable} -S -c "import runpy, sys;'
        f"sys.exit(runpy.run_path('{script}')['session']())\" \"$@\"\n"
    )
    path.chmod(0o755)
    return path


class DoubleEngine:
    """One engine at `address`. `folder` is its state."""

    def __init__(self, folder: Path, layers: int = 440) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.socket = folder / "sock"
        self._layers = layers
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    @property
    def commands(self) -> int:
        """How many have run, as far as the last answer tells."""
        try:
            return int((self.folder / "commands").read_text())
        except FileNotFoundError:
            return 0

    def start(self, *, cold: bool = False) -> Self:
        """Returns when it serves."""
        argv = [sys.executable, "-m", "tests.drivers.dagger_double", "engine"]
        argv += [str(self.folder), str(self.socket), "--layers", str(self._layers)]
        self._process = subprocess.Popen(
            argv + ["--cold"] * cold,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n"
        return self

    def stop(self) -> None:
        """In order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def hold(self) -> None:
        """It takes what comes, and answers nothing, until `go_on`."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()
            self._process = None
