"""What a program in a worktree may try on the git outside of it.

Each attack is first run against plain git, to show that it works.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.git import diff, status
from services.git.draft import Draft
from services.git.errors import NothingToCommit, TreeChanges
from services.git.workspace import Workspace
from tests.git.parts import Parts, each_mode, make_source, own, run_git, tree_of, write

mode = each_mode

IN_CELL = "/run/cell/layers/0/evil.sh"
SECRET = "the-secret-of-the-host"


@dataclass(frozen=True)
class Attack:
    """`plant` prepares a tree so that one of `commands` of plain git runs the script."""

    name: str
    plant: Callable[[Path, str], None]
    command: tuple[str, ...]


def configured(*settings: tuple[str, str], attributes: str = "") -> Callable[[Path, str], None]:
    def plant(root: Path, script: str) -> None:
        run_git(root, "init", "-q")
        for key, value in settings:
            run_git(root, "config", key, value.replace("SCRIPT", script))
        if attributes:
            (root / ".gitattributes").write_text(attributes)
        (root / "README").write_text("other\n")

    return plant


def hook(root: Path, script: str) -> None:
    run_git(root, "init", "-q")
    (root / ".git" / "hooks").mkdir(exist_ok=True)
    for name in ("pre-commit", "post-commit", "reference-transaction", "pre-push"):
        path = root / ".git" / "hooks" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    (root / "README").write_text("other\n")


def git_file(root: Path, script: str) -> None:
    """A1: `.git` becomes a file that points to a repository of the attacker."""
    run_git(root, "init", "-q", "elsewhere")
    run_git(root / "elsewhere", "config", "core.fsmonitor", script)
    run_git(root / "elsewhere", "config", "core.worktree", str(root))
    shutil.rmtree(root / ".git")
    (root / ".git").write_text("gitdir: elsewhere/.git\n")


def nested(*settings: tuple[str, str], attributes: str = "") -> Callable[[Path, str], None]:
    def plant(root: Path, script: str) -> None:
        sub = root / "sub"
        shutil.rmtree(sub, ignore_errors=True)
        shutil.copytree(root / "prototype", sub)
        for key, value in settings:
            run_git(sub, "config", key, value.replace("SCRIPT", script))
        if attributes:
            (sub / ".gitattributes").write_text(attributes)
        (sub / "file").write_text("two\n")  # The same size as before.

    return plant


ATTACKS = [
    Attack("fsmonitor", configured(("core.fsmonitor", "SCRIPT")), ("status",)),
    Attack("hook", hook, ("commit", "-qam", "x")),
    Attack("git file", git_file, ("status",)),
    Attack("external diff", configured(("diff.external", "SCRIPT")), ("diff",)),
    Attack(
        "textconv",
        configured(("diff.evil.textconv", "SCRIPT"), attributes="* diff=evil\n"),
        ("diff",),
    ),
    Attack(
        "clean filter",
        configured(("filter.evil.clean", "SCRIPT"), attributes="* filter=evil\n"),
        ("add", "-A"),
    ),
    Attack(
        "process filter",
        configured(("filter.evil.process", "SCRIPT"), attributes="* filter=evil\n"),
        ("add", "-A"),
    ),
    Attack(
        "signing program",
        configured(("commit.gpgSign", "true"), ("gpg.program", "SCRIPT")),
        ("commit", "-qam", "x"),
    ),
    Attack(
        "ssh command",
        configured(("core.sshCommand", "SCRIPT"), ("remote.evil.url", "ssh://localhost/x")),
        ("fetch", "evil"),
    ),
    Attack("nested fsmonitor", nested(("core.fsmonitor", "SCRIPT")), ("status",)),
    Attack(
        "nested filter",
        nested(("filter.evil.clean", "SCRIPT"), attributes="* filter=evil\n"),
        ("status",),
    ),
]


def plant(attack: Attack, root: Path, mark: Path, prototype: Path, script: str) -> None:
    # In a cell the mark is out of reach, so the script also leaves one where it may write.
    (root / "evil.sh").write_text(
        f"#!/bin/sh\nmkdir -p '{mark}' 2>/dev/null\n"
        "for d in scratch layers/0 made store; do\n"
        "  mkdir -p /run/cell/$d/pwned /run/cell/$d/objects/pwned 2>/dev/null\n"
        "done\nexit 0\n"
    )
    (root / "evil.sh").chmod(0o755)
    shutil.copytree(prototype, root / "prototype")
    attack.plant(root, script)


@pytest.fixture(scope="module")
def prototype(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("attacks") / "prototype", {"file": "one\n"})


@pytest.fixture(scope="module")
def with_submodule(prototype: Path) -> Path:
    """A repository with a submodule `sub` at the prototype's commit."""
    path = make_source(prototype.parent / "with_submodule")
    commit = run_git(prototype, "rev-parse", "HEAD")
    run_git(path, "update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    run_git(path, "commit", "-qm", "Add a submodule")
    return path


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_nothing_from_a_worktree_is_run(
    attack: Attack, git: Parts, with_submodule: Path, prototype: Path, tmp_path: Path
) -> None:
    plain, mark = tmp_path / "plain", tmp_path / "mark"
    run_git(tmp_path, "clone", "-q", str(with_submodule), str(plain))
    plant(attack, plain, mark, prototype, str(plain / "evil.sh"))
    run_git(plain, *attack.command, check=False)
    assert mark.exists(), "the attack does not work on plain git: it shows nothing"
    mark.rmdir()

    await git.create(with_submodule)
    record, workspace = await git.ready()
    planted = tmp_path / "planted"
    run_git(tmp_path, "clone", "-q", str(with_submodule), str(planted))
    plant(attack, planted, mark, prototype, IN_CELL)
    tree = tree_of(workspace)
    (tree / "sub").rmdir()
    shutil.rmtree(tree / ".git")
    shutil.copytree(planted, tree, symlinks=True, dirs_exist_ok=True)
    own(workspace, *tree.rglob("*"))
    async with workspace.lock:
        assert (await status.read(workspace, workspace.head)).entries
    await drain(diff.of_work(workspace, record.base_commit, [], diff.Limits()))
    await git.committer.commit(record, workspace, Draft(message="Commit"))
    await drain(diff.of_commits(workspace, record.base_commit, workspace.head, [], diff.Limits()))
    assert not mark.exists()
    assert not list(git.state.rglob("pwned"))


@pytest.mark.parametrize("place", ["tree", "source"])
async def test_filters_configured_in_the_origin_are_not_run(
    place: str, git: Parts, source: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    command = f"sh -c 'mkdir -p {mark}; cat'"
    for key in ("filter.evil.clean", "filter.evil.smudge", "uploadpack.packObjectsHook"):
        run_git(source, "config", key, command)
    (source / ".gitattributes").write_text("* filter=evil\n")
    run_git(source, "add", "-A")
    assert mark.exists(), "the attack does not work on plain git: it shows nothing"
    mark.rmdir()
    run_git(source, "-c", "filter.evil.clean=cat", "commit", "-qm", "Attributes")
    await git.create(source)
    record, workspace = await git.ready()
    write(workspace, "README", "changed\n")
    await git.committer.commit(record, workspace, Draft(message="Commit"))
    assert (tree_of(workspace) / "src/a.txt").read_text() == "one\ntwo\n"
    assert not mark.exists()


async def drain(events: object) -> None:
    async with aclosing(events) as stream:  # type: ignore[type-var]
        async for _ in stream:  # type: ignore[attr-defined]
            pass


@pytest.fixture
def secret() -> Iterator[Path]:
    """A directory of the host that everyone may read."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "file").write_text(SECRET)
        yield path


def test_the_race_for_a_symlink_is_won_against_git_without_a_cell(
    source: Path, tmp_path: Path, secret: Path
) -> None:
    plain = tmp_path / "plain"
    run_git(tmp_path, "clone", "-q", str(source), str(plain))
    end = time.monotonic() + 20
    with swapping(plain, secret):
        while time.monotonic() < end and SECRET not in contents(plain / ".git"):
            run_git(plain, "rm", "-rq", "--cached", "--ignore-unmatch", "swapped", check=False)
            run_git(plain, "add", "-A", check=False)
    assert SECRET in contents(plain / ".git")


async def test_no_race_for_a_symlink_brings_in_a_file_of_the_host(
    git: Parts, source: Path, secret: Path
) -> None:
    await git.create(source)
    record, workspace = await git.ready()
    end = time.monotonic() + 3
    commits = 0
    with swapping(tree_of(workspace), secret, workspace):
        while time.monotonic() < end or not commits:  # As long as a slow machine needs for one.
            write(workspace, "count", str(commits))
            try:
                await git.committer.commit(record, workspace, Draft(message="Commit"))
            except (NothingToCommit, TreeChanges):
                continue
            commits += 1
            with suppress(TreeChanges):
                await drain(diff.of_work(workspace, record.base_commit, [], diff.Limits()))
    assert commits
    assert SECRET not in contents(workspace.repository.path)


@contextmanager
def swapping(tree: Path, secret: Path, workspace: Workspace | None = None) -> Iterator[None]:
    """Exchange a directory and a link to the secret's, as fast as possible."""
    directory, link = tree / "swapped", tree / "link"
    directory.mkdir()
    (directory / "file").write_text("harmless")
    link.symlink_to(secret)
    if workspace is not None:
        own(workspace, directory, directory / "file", link)
    program = (
        "import ctypes, sys\n"
        "swap = ctypes.CDLL(None).renameat2\n"
        "a, b = (name.encode() for name in sys.argv[1:])\n"
        "while True: swap(-100, a, -100, b, 2)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(directory), str(link)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def contents(git_dir: Path) -> str:
    """All blobs of an object store as one text."""
    return run_git(git_dir, "cat-file", "--batch-all-objects", "--batch", "--unordered")
