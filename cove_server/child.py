"""Runs a service that ends with the process that started it.

`python -m cove_server.child PARENT LOCK MODULE`: LOCK is a descriptor that is kept
open, so that its lock is held for as long as the service lives.
"""

import ctypes
import gc
import os
import runpy
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_FIRST: Final = frozenset(("gateway", "services.registry"))
_BEHIND: Final = 5
"""By so much others are nicer than these two, which every call waits for: what is slow anyway makes
nothing slow that is quick. Decision 0058."""


def main() -> None:
    """Become the service."""
    parent, lock, module = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # It died before the line above.
        sys.exit(1)
    os.set_inheritable(int(lock), False)
    if module not in _FIRST:
        os.nice(_BEHIND)
    sys.argv[1:] = []
    gc.disable()  # What a service imports is there for good; it collects once it serves.
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
