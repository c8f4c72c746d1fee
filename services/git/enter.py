"""Prepares a cell as root, gives root up, and becomes bubblewrap.

Run by path as `python -I -S enter.py UID GID SOURCE... -- ARGV...`; standard
library only. Directories below a 0700 state directory cannot be reached any
more once the uid is dropped, so each SOURCE is first bound at a neutral place,
`STAGE/<number>`, in a mount namespace of its own. Dropping comes before bwrap:
`bwrap --uid N` run as root would leave the cell mapped to root outside.
"""

import ctypes
import os
import sys

# Exists everywhere, is needed in no cell, and holds nobody's repository.
STAGE = "/sys"

_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MS_NOSUID, _MS_NODEV = 0x2, 0x4


def main(arguments: list[str]) -> None:
    end = arguments.index("--")
    uid, gid = int(arguments[0]), int(arguments[1])
    sources, argv = arguments[2:end], arguments[end + 1 :]
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int, what: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            sys.exit(f"cannot prepare a cell: {what}: {os.strerror(number)}")

    def mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
        encoded = [value and os.fsencode(value) for value in (source, target, kind, data)]
        check(libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]), f"mount on {target}")

    check(libc.unshare(_CLONE_NEWNS), "unshare")
    mount("none", "/", None, _MS_REC | _MS_PRIVATE, None)
    mount("tmpfs", STAGE, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    for number, source in enumerate(sources):
        target = f"{STAGE}/{number}"
        os.mkdir(target)  # noqa: PTH102 - starts faster without pathlib.
        mount(source, target, None, _MS_BIND, None)
    os.umask(0o022)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.execv(argv[0], argv)  # noqa: S606 - becoming the program is the point.


if __name__ == "__main__":
    main(sys.argv[1:])
