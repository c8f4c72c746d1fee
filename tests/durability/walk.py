"""Kills a process at a line of its own code: `python walk.py FOLDER TRIGGER MODULE ARGUMENT...`.

MODULE is run as by `python -m`, traced. From the call of the function TRIGGER on, once there is a
file `at` in FOLDER, each line of Cove's own code that is reached for the first time is a point:
where `at` is empty its name goes to the file `points`, else the process dies at the point that
`at` names, as by kill -9. Only modules that start in milliseconds are used, as the agent does it
too.
"""

import os
import sys
from types import FrameType
from typing import Any, Final

_SIGKILL: Final = 9
_OURS: Final = ("/agent/", "/services/", "/servicekit/", "/gateway/", "/sdk/src/cove/")


class Walk:
    def __init__(self, folder: str, trigger: str) -> None:
        self._folder = folder
        self._trigger = trigger
        self._armed = False
        self._at = ""
        self._seen: set[str] = set()
        self._ours: dict[str, bool] = {}
        self._pid = os.getpid()

    def begin(self) -> None:
        sys.settrace(self.trace)
        if threading := sys.modules.get("threading"):
            threading.settrace(self.trace)

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        ours = self._ours.get(code.co_filename)
        if ours is None:
            ours = any(each in code.co_filename for each in _OURS)
            self._ours[code.co_filename] = ours
        if not ours:
            return None
        if not self._armed:
            if event == "call" and code.co_qualname == self._trigger:
                self._arm()
            return self.line if self._armed else None
        return self.line

    def line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            name = frame.f_code.co_filename.rpartition("/")[2]
            self.reach(f"{name}:{frame.f_lineno}")
        return self.line

    def reach(self, point: str) -> None:
        if os.getpid() != self._pid:
            point += "/child"
        if point in self._seen:
            return
        self._seen.add(point)
        if not self._at:
            self._note(point)
        elif point == self._at and self._first():
            os.kill(os.getpid(), _SIGKILL)
            os._exit(128 + _SIGKILL)  # The first process of a sandbox is not killed from inside.

    def _first(self) -> bool:
        """One process dies, and whoever takes its place does not."""
        try:
            os.unlink(f"{self._folder}/at")  # noqa: PTH108
        except FileNotFoundError:
            return False
        return True

    def _arm(self) -> None:
        try:
            descriptor = os.open(f"{self._folder}/at", os.O_RDONLY)
        except FileNotFoundError:
            return
        self._at = os.read(descriptor, 1000).decode()
        os.close(descriptor)
        self._armed = True

    def _note(self, point: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptor = os.open(f"{self._folder}/points", flags, 0o666)
        os.write(descriptor, f"{point}\n".encode())
        os.close(descriptor)


def main() -> None:
    import runpy
    import threading  # noqa: F401 - found by `begin`.

    folder, trigger, module, *arguments = sys.argv[1:]
    sys.argv[1:] = arguments
    sys.path[0] = os.getcwd()  # noqa: PTH109 # Not in a sandbox.
    Walk(folder, trigger).begin()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
