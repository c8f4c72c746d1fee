"""Runs a service and tells how long its event loop was held up: `python stalls.py FILE MODULE`.

At SIGUSR1 it writes to FILE what the longest callback took of the processor, in seconds, and on
the clock, where others' work counts too; and begins anew.
"""

import asyncio
import gc
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any


class Stalls:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._processor = self._clock = 0.0
        self._what = ""
        self._collecting = self._longest = 0.0
        """Seconds of the processor that collecting garbage took at once."""

    def collect(self, phase: str, _: object) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self._longest = max(self._longest, time.thread_time() - self._collecting)

    def install(self) -> None:
        handles: Any = asyncio.Handle
        run = handles._run  # noqa: SLF001

        def measured(handle: Any) -> None:
            clock, processor = time.perf_counter(), time.thread_time()
            run(handle)
            took = time.thread_time() - processor
            if took > self._processor:
                self._processor, self._what = took, repr(handle)
            self._clock = max(self._clock, time.perf_counter() - clock)

        handles._run = measured  # noqa: SLF001
        signal.signal(signal.SIGUSR1, self._tell)
        gc.callbacks.append(self.collect)

    def _tell(self, *_: object) -> None:
        writing = self._file.with_suffix(".new")
        told = {"processor": self._processor, "clock": self._clock, "what": self._what}
        told |= {"garbage": self._longest}
        writing.write_text(json.dumps(told))
        writing.rename(self._file)
        self._processor = self._clock = 0.0


def main() -> None:
    _, file, module = sys.argv
    sys.argv[1:] = []
    sys.path[0] = str(Path.cwd())
    Stalls(Path(file)).install()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
    os._exit(0)
