"""Mounts a worktree as the launcher does, in namespaces of its own, and runs commands on it.

Run by path as `python -I -S mounted.py JSON`, a `Spec`; standard library and agent.overlay only.
Says `ready`, then answers each line of JSON (`argv`, `stdin` in hex) by one, until its
input ends. Ends with `CANNOT` where nothing can be mounted.
"""

# ruff: noqa: PTH101, PTH103, PTH211, T201

import fcntl
import json
import os
import subprocess
import sys
from typing import Any

CANNOT = 77
ROOT = "/mnt"

_READ_ONLY = 0x1 | 0x20 | 0x1000
_KEPT = 0x2 | 0x4 | 0x8
"""Marks of a mount that nobody may take off in a user namespace."""
_ENV = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_EDITOR": "true",
}


def main(spec: dict[str, Any]) -> int:
    sys.path.insert(0, spec["source"])
    from agent import overlay

    os.umask(0o022)
    held = os.open(spec["lock"], os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_SH)
    try:
        overlay.enter_namespace()
        overlay.attach("tmpfs", ROOT, "tmpfs", options="mode=0755")
        for name in ("usr", "dev", "workspace", ".cove/objects", ".cove/git", "tmp"):
            os.makedirs(f"{ROOT}/{name}")
        os.chmod(f"{ROOT}/tmp", 0o1777)
        for name in ("bin", "lib", "lib64"):
            os.symlink(f"usr/{name}", f"{ROOT}/{name}")
        binds = [("/usr", "usr"), ("/dev", "dev")]
        binds += [(spec["objects"], ".cove/objects"), (spec["outside"], ".cove/git")]
        for source, target in binds:
            overlay.bind(source, f"{ROOT}/{target}")
        for target in (".cove/objects", ".cove/git"):
            kept = os.statvfs(f"{ROOT}/{target}").f_flag & _KEPT
            overlay.attach("none", f"{ROOT}/{target}", flags=_READ_ONLY | kept)
        target = f"{ROOT}/workspace"
        if spec["xattrs"]:
            overlay.mount(spec["lowers"], spec["upper"], spec["work"], target, spec["xattrs"])
        else:
            overlay.bind(spec["upper"], target)
    except OSError as error:
        print(error, file=sys.stderr)
        return CANNOT
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line), spec["uid"], spec["gid"])), flush=True)
    return 0


def _run(asked: dict[str, Any], uid: int, gid: int) -> dict[str, Any]:
    def enter() -> None:
        os.chroot(ROOT)
        os.chdir("/workspace")
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)

    done = subprocess.run(
        asked["argv"],
        env=_ENV,
        input=bytes.fromhex(asked["stdin"]),
        capture_output=True,
        check=False,
        preexec_fn=enter,
    )
    return {"code": done.returncode, "out": done.stdout.hex(), "err": done.stderr.hex()}


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
