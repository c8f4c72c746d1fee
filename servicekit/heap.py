"""How much free memory a process keeps for what it needs next.

A message of output is some 256 KiB, and exists several times on its way. By itself the C library
gives each copy back to the kernel at once, which clears every page again for the next: half of
what streaming costs.
"""

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_ARENAS: Final = 2
"""Parts of the heap, of which each keeps some: our threads take turns anyway."""
_KEPT: Final = 2 << 20
"""Bytes that are kept at most, of what a part of the heap ends with."""
_APART: Final = 1 << 20
"""From so many bytes on, something is memory of its own, which goes back when it is freed."""


def set_up() -> None:
    """Where the C library has no such option nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_ARENA_MAX, _ARENAS)
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _APART)
