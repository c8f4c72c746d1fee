"""What files in a worktree, and a repository that is cloned, may try on git outside."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from cove.client import Client
from cove.git.v1.git_pb2 import DiffFile
from cove.status import CoveError
from cove.workspaces import Workspace
from tests.support.repository import git, make_repository
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="module")

MARK = "for d in /workspace /run/cell/*; do mkdir -p $d/pwned 2>/dev/null; done; mkdir -p {mark}"

PLANT = """
set -e
mkdir nested embedded sub
for name in nested sub; do
    git init -q $name
    git -C $name config core.fsmonitor "$1"
    git -C $name config filter.evil.clean "$1"
    git -C $name config diff.external "$1"
    printf '* filter=evil diff=evil\\n' > $name/.gitattributes
    echo x > $name/file
done
git init -q --bare embedded
git -C embedded config core.fsmonitor "$1"
mkdir upper && mkdir upper/.GIT && printf '[core]\\nfsmonitor = %s\\n' "$1" > upper/.GIT/config
mkdir linked && ln -s ../nested/.git linked/.git
printf 'gitdir: ../nested/.git\\n' > sub2 && mkdir pointed && cp sub2 pointed/.git
printf '[submodule "x"]\\npath = sub\\nurl = ext::sh -c %s\\n' "$1" > .gitmodules
printf '* filter=evil diff=evil merge=evil\\n' > .gitattributes
printf 'changed\\n' > README.md
"""

SWAP = """
import ctypes, os
libc = ctypes.CDLL(None)
os.makedirs("real", exist_ok=True)
open("real/passwd", "w").write("mine")
if not os.path.lexists("link"):
    os.symlink("/etc", "link")
print("begun", flush=True)
while True:
    libc.renameat2(-100, b"real", -100, b"link", 2)
"""


async def patch(workspace: Workspace) -> bytes:
    data = b""
    async for event in workspace.diff():
        if hasattr(event, "data"):
            data += event.data
    return data


async def test_nothing_that_lies_in_a_worktree_is_run_outside(
    suite: Suite, workspace: Workspace, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    script = MARK.format(mark=mark)
    control = tmp_path / "control"
    make_repository(control)
    subprocess.run(["sh", "-c", PLANT, "sh", script], cwd=control, check=True)
    git(control, "config", "core.fsmonitor", script)
    git(control, "status")
    assert mark.exists(), "the attack does not work on plain git: it shows nothing"
    mark.rmdir()

    planted = await workspace.execute("sh", "-c", PLANT, "sh", script)
    assert planted.exit_status == 0, planted.stderr
    assert (await workspace.status()).entries
    assert b"changed" in await patch(workspace)
    done = await workspace.commit("Everything that can be")
    assert done.commit.id
    assert await patch(workspace) == b""
    assert not mark.exists()
    # Not `rglob`, which fails where a folder goes away meanwhile.
    found = subprocess.run(["find", suite.state, "-name", "pwned"], stdout=-1, check=False).stdout
    assert found == b""


async def test_the_view_of_git_inside_is_read_only_and_not_believed(
    suite: Suite, workspace: Workspace
) -> None:
    tried = await workspace.execute(
        "sh",
        "-c",
        "git config core.fsmonitor evil; echo x > .git/HEAD; rm -rf .git; mv .git away;"
        "mkdir -p .git/hooks/x; ln -sf /etc .git/objects; rm -rf /.cove/objects/*;"
        "git rev-parse HEAD && ls .git/hooks | wc -l",
    )
    head, hooks = tried.stdout.split()
    assert (head.decode(), hooks) == (workspace.message.head_commit, b"0")
    assert not (await workspace.status()).entries


async def test_a_clone_of_a_tree_that_no_git_would_make_touches_nothing(
    suite: Suite, cove: Client, tmp_path: Path
) -> None:
    evil = tmp_path / "evil"
    make_repository(evil)
    blob = git(evil, "hash-object", "-w", "README.md").strip()
    lines = {
        ".git": "040000 tree {inner}\t.git\n",
        ".GIT": "040000 tree {inner}\t.GIT\n",
        "..": "040000 tree {inner}\t..\n",
    }
    inner = _tree(evil, f"100644 blob {blob}\tconfig\n")
    for name, line in lines.items():
        commit = git(evil, "commit-tree", _tree(evil, line.format(inner=inner)), "-m", name).strip()
        branch = f"evil-{len(name)}-{name.strip('.').lower() or 'up'}-{name == '.GIT'}".lower()
        (evil / ".git" / "refs" / "heads" / branch).write_text(f"{commit}\n")
        with pytest.raises(CoveError):
            await cove.workspaces.create(f"file://{evil}", revision=branch, id="evil-clone")
    assert not list((suite.state / "git" / "worktrees").rglob("config.lock"))
    assert "evil-clone" not in [each.id async for each in cove.workspaces.list()]


def _tree(repository: Path, line: str) -> str:
    data = b""
    mode, kind_id_name = line.rstrip("\n").split(" ", 1)
    object_id, name = kind_id_name.split(" ", 1)[1].split("\t")
    data = mode.lstrip("0").encode() + b" " + name.encode() + b"\0" + bytes.fromhex(object_id)
    made = subprocess.run(
        ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"],
        cwd=repository,
        input=data,
        capture_output=True,
        check=True,
    )
    return made.stdout.decode().strip()


async def test_links_out_of_the_worktree_are_committed_as_links(workspace: Workspace) -> None:
    await workspace.execute(
        "sh", "-c", "ln -s /etc etc; ln -sf /etc/passwd README.md; ln -s /proc/1/environ env"
    )
    await workspace.commit("Links")
    files = await workspace.execute("git", "ls-tree", "-r", "HEAD")
    lines = [line.split(b"\t") for line in files.stdout.splitlines()]
    modes = {name: mode for mode, name in lines}
    for name in (b"etc", b"README.md", b"env"):
        assert modes[name].startswith(b"120000")
    shown = await workspace.execute("git", "cat-file", "-p", "HEAD:README.md")
    assert shown.stdout == b"/etc/passwd"


@pytest.mark.long
async def test_no_commit_or_diff_takes_a_file_of_the_host_while_links_are_swapped(
    suite: Suite, workspace: Workspace, tmp_path: Path
) -> None:
    host = Path("/etc/passwd").read_bytes()
    running = await workspace.start("python3", "-c", SWAP)
    tree = suite.state / "git" / "worktrees" / workspace.message.uid / "tree"
    async with asyncio.timeout(30):  # Plain reading by path is led out.
        while await asyncio.to_thread(_read, tree / "real" / "passwd") != host:
            pass
    line, done = host.splitlines()[0], 0
    for number in range(20):
        await workspace.write(f"n{number}", b"x")
        try:  # A tree that changes all the time may be refused, and is never followed.
            assert line not in await patch(workspace)
            await workspace.commit(f"Commit {number}")
        except CoveError:
            continue
        done += 1
    assert done
    await running.delete(force=True)
    seen = await workspace.execute("sh", "-c", "git log -p --all | grep -c '^+root:'")
    assert seen.stdout == b"0\n"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def test_a_sparse_file_of_a_terabyte_does_not_hold_up_status(workspace: Workspace) -> None:
    await workspace.execute("sh", "-c", "truncate -s 1T README.md new; mkfifo pipe; mkfifo src/p")
    async with asyncio.timeout(20):
        entries = {entry.path for entry in (await workspace.status()).entries}
    assert entries == {"README.md", "new"}


async def test_names_that_look_like_options_or_lines_are_names(workspace: Workspace) -> None:
    names = [b"--upload-pack=x", b"-", b"a\nb", b"\xff\xfe", b":(top)x", b"*", b"a\tb", b'"q"']
    for name in names:
        await workspace.write(name, b"x")
    entries = {
        entry.raw_path or entry.path.encode() for entry in (await workspace.status()).entries
    }
    assert entries == set(names)
    await workspace.commit("Names")
    assert not (await workspace.status()).entries
    events = [event async for event in workspace.diff(paths=["*"])]
    assert not [event for event in events if isinstance(event, DiffFile)]


async def test_values_that_look_like_options_are_refused(workspace: Workspace) -> None:
    for remote in ("--upload-pack=x", "ext::sh -c true", "fd::3", "/etc", "git://127.0.0.1/a"):
        with pytest.raises(CoveError):
            await workspace.push(remote=remote)
    for branch in ("--force", "a:b", "a b", "refs/../x", "a\nb"):
        with pytest.raises(CoveError):
            await workspace.push(branch=branch)
    for path in ("../x", "/etc/passwd"):
        with pytest.raises(CoveError):
            await workspace.commit("Outside", paths=[path])
