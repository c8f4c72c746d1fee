"""The program in a worktree's sandbox: changes it, and says what stock git makes of it.

Run by path as `python -I -S inside.py SPEC`, standard library only. SPEC is JSON: `lowers`,
`upper`, `work` and `xattrs` of an overlay, or `tree` of a plain worktree; `objects`, `outside`,
`lock`, `uid`, and the files `overlay` and `plumbing` of the agent. Requests are lines of JSON: what
to do and with what; so are answers. Bytes are text in Latin-1. Ends with `CANNOT` without a mount.
"""

# ruff: noqa: PTH101, PTH102, PTH103, PTH108, PTH112, PTH113, PTH114, PTH118, PTH120, PTH123, PTH211
# ruff: noqa: T201

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

CANNOT = 77
GIT_FAILED = "git failed: "

_ROOT, _TREE, _TRUTH = "/mnt", b"/workspace", "/tmp/truth"
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_ENV = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TEMPLATE_DIR": "",
    "GIT_EDITOR": "true",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}
_TRUTH_ENV = {
    **_ENV,
    "GIT_DIR": _TRUTH,
    "GIT_WORK_TREE": "/workspace",
    "GIT_LITERAL_PATHSPECS": "1",
}


def main(text: str) -> None:
    spec = json.loads(text)
    plumbing = _load(spec["plumbing"], "plumbing")
    _enter(spec)
    _make_truth()
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _do(request, plumbing)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or b"").decode("latin-1")
            answer = {"error": f"{GIT_FAILED}{error.cmd}: {said}"}
        print(json.dumps(answer), flush=True)


def _load(path: str, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _enter(spec: dict[str, Any]) -> None:
    """Become the sandbox's user, in a root with the worktree and little else."""
    overlay = _load(spec["overlay"], "overlay")
    uid = os.geteuid()
    fcntl.flock(os.open(spec["lock"], os.O_RDWR), fcntl.LOCK_SH)
    try:
        overlay.enter_namespace()
        opened = {
            target: os.open(source, os.O_PATH)
            for target, source in (
                ("usr", "/usr"),
                ("dev", "/dev"),
                (".cove/objects", spec["objects"]),
                (".cove/git", spec["outside"]),
                *((("workspace", spec["tree"]),) if "tree" in spec else ()),
            )
        }
        layers = None
        if "tree" not in spec:
            layers = overlay.Layers(spec["lowers"], spec["upper"], spec["work"])
        overlay.attach("tmpfs", _ROOT, "tmpfs", options="mode=0755")
        for name in ("usr", "dev", "workspace", ".cove", ".cove/objects", ".cove/git", "tmp"):
            os.mkdir(f"{_ROOT}/{name}")
        os.chmod(f"{_ROOT}/tmp", 0o1777)
        for name in ("bin", "lib", "lib64"):
            os.symlink(f"usr/{name}", f"{_ROOT}/{name}")
        for target, descriptor in opened.items():
            overlay.bind(f"/proc/self/fd/{descriptor}", f"{_ROOT}/{target}")
            os.close(descriptor)
        if layers:
            layers.mount(f"{_ROOT}/workspace", spec["xattrs"])
            layers.close()
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(CANNOT)
    os.chroot(_ROOT)
    os.chdir("/workspace")
    if uid == 0:
        os.setgroups([])
        os.setgid(int(spec["uid"]))
        os.setuid(int(spec["uid"]))
    assert os.geteuid() != 0


def _make_truth() -> None:
    """A repository outside of the worktree, by which stock git looks at it."""
    for name in ("objects/info", "refs", "info"):
        os.makedirs(f"{_TRUTH}/{name}")
    for name, data in (
        ("HEAD", "ref: refs/heads/none\n"),
        ("config", "[core]\n\trepositoryformatversion = 0\n\tbare = false\n"),
        ("info/attributes", "* -text -filter\n"),
        ("objects/info/alternates", "/.cove/objects\n/workspace/.git/objects\n"),
    ):
        with open(f"{_TRUTH}/{name}", "w") as file:
            file.write(data)


def _do(request: dict[str, Any], plumbing: Any) -> dict[str, Any]:
    what = request["do"]
    if what == "truth":
        return _truth(request["head"], request.get("paths"))
    if what == "git":
        return _git_inside(request["steps"])
    if what == "follow":
        return {"ended": plumbing.follow(plumbing.read(plumbing.HEAD), 5.0)}
    if what == "paths":
        return {"paths": [_text(path) for path in _paths()]}
    if what == "tip":
        done = subprocess.run(
            ["git", "rev-parse", "-q", "--verify", "HEAD"],
            cwd=_TREE, env=_ENV, capture_output=True, check=False,
        )  # fmt: skip
        return {"tip": done.stdout.decode().strip()}
    try:
        words = (
            word.encode("latin-1") if isinstance(word, str) else word for word in request["with"]
        )
        _EDITS[what](*words)
    except OSError as error:  # What cannot be done is not done.
        return {"failed": str(error)}
    return {}


def _truth(head: str, paths: list[str] | None) -> dict[str, Any]:
    """What `git add -A` would commit on top of `head`, all or what is at or below `paths`."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{_TRUTH}/index")
    _stock("read-tree", head) if head else _stock("read-tree", "--empty")
    with open(f"{_TRUTH}/HEAD", "w") as file:
        file.write(f"{head}\n" if head else "ref: refs/heads/none\n")
    chosen = [b"--", *(path.encode("latin-1") for path in paths)] if paths else []
    _stock("add", "-A", *chosen)
    tree = _stock("write-tree").decode().strip()
    since = head or _EMPTY_TREE
    raw = _stock("diff", "--cached", "-M", "-l1000", "--raw", "-z", since)
    patch = _stock("diff", "--cached", "-M", "-l1000", "-p", "--diff-filter=t", since)
    return {"tree": tree, "raw": _text(raw), "patch": _text(patch)}


def _stock(*arguments: str | bytes) -> bytes:
    return subprocess.run(
        ["git", *arguments], cwd=_TREE, env=_TRUTH_ENV, capture_output=True, check=True
    ).stdout


def _git_inside(steps: list[list[str]]) -> dict[str, Any]:
    """Run each until one fails, in the repository of the worktree."""
    said = b""
    for step in steps:
        words = [word.encode("latin-1") for word in step]
        done = subprocess.run(
            [b"git", *words], cwd=_TREE, env=_ENV, capture_output=True, check=False
        )
        said = done.stdout + done.stderr
        if done.returncode:
            return {"code": done.returncode, "said": _text(said)}
    return {"code": 0, "said": _text(said)}


def _paths() -> list[bytes]:
    """All that is there but `.git`, relative, in a fixed order."""
    found = []
    for folder, folders, names in os.walk(_TREE):
        if folder == _TREE:
            folders[:] = [name for name in folders if name != b".git"]
        folders.sort()
        found += [os.path.join(folder, name)[len(_TREE) + 1 :] for name in (*folders, *names)]
    return sorted(found)


def _write(path: bytes, data: bytes) -> None:
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def _append(path: bytes, data: bytes) -> None:
    if _is_file(path):
        with open(path, "ab") as file:
            file.write(data)


def _same_size(path: bytes, byte: int) -> None:
    """Other content of the same length, and the time of modification as before."""
    if not _is_file(path):
        return
    about = os.lstat(path)
    with open(path, "r+b") as file:
        file.write(bytes([byte]) * about.st_size)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def _touch(path: bytes) -> None:
    os.utime(path, follow_symlinks=False)


def _chmod(path: bytes, mode: int) -> None:
    if not os.path.islink(path):
        os.chmod(path, mode | 0o700 if os.path.isdir(path) else mode | 0o400)


def _remove(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _to_directory(path: bytes, name: bytes, data: bytes) -> None:
    """Whatever it was: a directory made anew, with one file."""
    _remove(path)
    os.mkdir(path)
    _write(os.path.join(path, name), data)


def _to_file(path: bytes, data: bytes) -> None:
    _remove(path)
    _write(path, data)


def _to_link(path: bytes, target: bytes) -> None:
    _remove(path)
    os.symlink(target, path)


def _link(path: bytes, target: bytes) -> None:
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink(target, path)


def _is_file(path: bytes) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


_EDITS: dict[str, Callable[..., object]] = {
    "write": _write,
    "append": _append,
    "same size": _same_size,
    "touch": _touch,
    "chmod": _chmod,
    "remove": _remove,
    "to directory": _to_directory,
    "to file": _to_file,
    "to link": _to_link,
    "link": _link,
    "hard link": os.link,
    "rename": os.rename,
    "mkdir": os.makedirs,
    "fifo": os.mkfifo,
}


def _text(data: bytes) -> str:
    return data.decode("latin-1")


if __name__ == "__main__":
    main(*sys.argv[1:])
