"""Mounts layers as a sandbox does, in namespaces of its own, and runs a command on them.

Run by path as `python -I -S overlay.py LAYERS UPPER WORK OBJECTS UID [COMMAND...]`;
standard library only. LAYERS are separated by colons, the topmost first. Without
a command it prints what is there. Ends with `CANNOT` where that is not to be had.
"""

# ruff: noqa: PTH101, PTH102, PTH115, PTH118, PTH123, PTH211, T201

import ctypes
import json
import os
import stat
import sys

CANNOT = 77

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_ROOT = "/mnt"
_ENV = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def main(layers: str, upper: str, work: str, objects: str, uid: str, *command: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int, what: str) -> None:
        if result != 0:
            print(f"{what}: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
            sys.exit(CANNOT)

    def mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
        words = [word and os.fsencode(word) for word in (source, target, kind, data)]
        check(libc.mount(*words[:3], ctypes.c_ulong(flags), words[3]), f"mount on {target}")

    own, group = os.geteuid(), os.getegid()
    check(libc.unshare(_CLONE_NEWNS | (_CLONE_NEWUSER if own else 0)), "unshare")
    if own:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{own} {own} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    mount("none", "/", None, _MS_REC | _MS_PRIVATE, None)
    mount("tmpfs", _ROOT, "tmpfs", 0, "mode=0755")
    for name in ("usr", "dev", "workspace", ".cove", ".cove/objects", "tmp"):
        os.mkdir(f"{_ROOT}/{name}")
    os.chmod(f"{_ROOT}/tmp", 0o1777)
    for name in ("bin", "lib", "lib64"):
        os.symlink(f"usr/{name}", f"{_ROOT}/{name}")
    for source, target in (("/usr", "usr"), ("/dev", "dev"), (objects, ".cove/objects")):
        mount(source, f"{_ROOT}/{target}", None, _MS_BIND | _MS_REC, None)
    options = f"lowerdir={layers},upperdir={upper},workdir={work}"
    options += ",userxattr" if own else ",redirect_dir=on"
    mount("overlay", f"{_ROOT}/workspace", "overlay", 0, options)
    if not command:
        print(json.dumps(listing(os.fsencode(f"{_ROOT}/workspace"))))
        return
    os.chroot(_ROOT)
    os.chdir("/workspace")
    if own == 0:
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
    # Nothing can be imported from here any more.
    os.execve("/usr/bin/env", ["env", *command], _ENV)


def listing(root: bytes) -> dict[str, list[str | int]]:
    """All below `root` but `.git`: what it is, and its mode and content."""
    found: dict[str, list[str | int]] = {}
    for folder, folders, names in os.walk(root):
        if folder == root and b".git" in folders:
            folders.remove(b".git")
        if folder == root and b".git" in names:
            names.remove(b".git")
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            content = b""
            if stat.S_ISLNK(mode):
                content = os.readlink(path)
            elif stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    content = file.read()
            found[os.path.relpath(path, root).hex()] = [mode, content.hex()]
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
