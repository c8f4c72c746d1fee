"""The place from which root gives cells their directories.

Directories below a 0700 state directory cannot be reached any more once the
uid is dropped, and dropping comes before bubblewrap: `bwrap --uid N` run as
root would leave the cell mapped to root outside. So they are bound once at a
neutral place, `STAGE/<number>`, in a mount namespace of its own, which lives as
long as the service holds its descriptor. Each cell enters it and gives up root
by `nsenter`, which starts in a tenth of the time that an interpreter takes.

Run by path as `python -I -S stage.py SOURCE...` it makes such a namespace, says
so, and waits until its standard input ends; standard library only.
"""

import ctypes
import os
import sys

# Exists everywhere, is needed in no cell, and holds nobody's repository.
STAGE = "/sys"

_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 0x80000
_MS_NOSUID, _MS_NODEV = 0x2, 0x4


def main(sources: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int, what: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            sys.exit(f"cannot prepare cells: {what}: {os.strerror(number)}")

    def mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
        encoded = [value and os.fsencode(value) for value in (source, target, kind, data)]
        check(libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]), f"mount on {target}")

    check(libc.unshare(_CLONE_NEWNS), "unshare")
    # What the host mounts later is seen here too; nothing goes the other way.
    mount("none", "/", None, _MS_REC | _MS_SLAVE, None)
    mount("tmpfs", STAGE, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    for number, source in enumerate(sources):
        target = f"{STAGE}/{number}"
        os.mkdir(target)  # noqa: PTH102 - no pathlib for so little.
        mount(source, target, None, _MS_BIND | _MS_REC, None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
