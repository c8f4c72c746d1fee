"""Puts frozen layers of an overlay into one, in time that depends on what they hold alone.

Files are linked, not copied: nobody writes a frozen layer. Nothing writes them meanwhile either,
so that paths are what they are.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from services.git.record import Mode
from services.git.scan import scan
from services.git.within.layers import Directory, Gone, Leaf, world


def flatten(layers: Sequence[Path], target: Path, mode: Mode) -> None:
    """Make `target` a layer that looks like `layers`, the topmost first, did together."""
    made = world([scan(path, mode.value, whole=True) for path in layers])
    target.mkdir()
    _fill(made, os.fsencode(target), (), [os.fsencode(path) for path in layers], mode)
    _alike(made, target, [os.fsencode(path) for path in layers])


def _fill(
    directory: Directory, target: bytes, place: tuple[bytes, ...], layers: list[bytes], mode: Mode
) -> None:
    for name, child in directory.children.items():
        path = target + b"/" + name
        if isinstance(child, Gone):
            os.mknod(path, stat.S_IFCHR, 0)
        elif isinstance(child, Leaf):
            os.link(layers[child.layer] + b"/" + child.path, path, follow_symlinks=False)
        else:
            os.mkdir(path)  # noqa: PTH102 - bytes.
            here = (*place, name)
            _fill(child, path, here, layers, mode)
            if child.base is None:
                os.setxattr(path, f"{mode}.overlay.opaque", b"y")
            elif child.base != here:
                os.setxattr(path, f"{mode}.overlay.redirect", b"/" + b"/".join(child.base))
            _alike(child, Path(os.fsdecode(path)), layers)


def _alike(directory: Directory, target: Path, layers: list[bytes]) -> None:
    """Give a directory the owner, mode and times of the topmost one it is made of."""
    layer, path = directory.origin
    about = os.stat(layers[layer] + (b"/" + path if path else b""))  # noqa: PTH116 - bytes.
    if os.geteuid() == 0:
        os.chown(target, about.st_uid, about.st_gid)
    target.chmod(stat.S_IMODE(about.st_mode))
    os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))
