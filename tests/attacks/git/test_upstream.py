"""What a repository that is cloned may try on who clones it."""

import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from cove.git.v1 import git_pb2 as pb
from cove.status import CoveError, Internal
from tests.attacks.git.arena import Watch
from tests.attacks.git.attack import parameters
from tests.attacks.git.parts import Attacked
from tests.support.repository import git, make_repository

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.long]

NAMES = {
    "plain": b".git",
    "upper": b".GIT",
    "short": b"git~1",
    "stream": b".git::$INDEX_ALLOCATION",
    "ignorable": ".g\u200cit".encode(),
    "dots": b".git. . ",
    "up": b"..",
    "here": b".",
    "slash": b"../x",
    "absolute": b"/x",
    "inner": b"a/b",
    "empty": b"",
}
ALWAYS = ("plain", "upper", "ignorable", "up", "slash")
# What git itself, wherever it runs, does not take for a name; `a/b` it reads as a path.
NEVER = {b".git", b".GIT", b"..", b".", b"../x", b"/x", b""}


def made(upstream: Path, entries: list[tuple[str, bytes, str]], branch: str) -> str:
    """A branch whose tree has exactly these entries: mode, name, object; returns the commit."""
    data = b"".join(
        mode.lstrip("0").encode() + b" " + name + b"\0" + bytes.fromhex(id_)
        for mode, name, id_ in entries
    )
    argv = ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"]
    tree = subprocess.run(argv, cwd=upstream, input=data, capture_output=True, check=True).stdout
    commit = git(upstream, "commit-tree", tree.decode().strip(), "-m", branch).strip()
    (upstream / ".git" / "refs" / "heads" / branch).write_text(f"{commit}\n")
    return commit


def blob(upstream: Path, content: bytes) -> str:
    argv = ["git", "hash-object", "-w", "--stdin"]
    done = subprocess.run(argv, cwd=upstream, input=content, capture_output=True, check=True)
    return done.stdout.decode().strip()


def left(attacked: Attacked) -> set[Path]:
    return set((attacked.suite.state / "git" / "worktrees").iterdir())


async def refused(attacked: Attacked, upstream: Path, revision: str) -> CoveError | None:
    """Make a workspace of it. When that fails nothing is left; else it is harmless.

    A repository that its own git cannot serve is one that broke off: with little patience.
    """
    before = left(attacked)
    name = f"upstream-{secrets.token_hex(4)}"
    with Watch(attacked.arena.token) as watch:
        try:
            async with attacked.suite.client(patience=1) as cove:
                await cove.workspaces.create(f"file://{upstream}", revision=revision, id=name)
        except CoveError as error:
            assert left(attacked) == before
            assert name not in [each.id async for each in attacked.cove.workspaces.list()]
            assert attacked.arena.dropped() == []
            return error
        workspace = await attacked.cove.workspaces.get(name)
        try:
            hits, _ = await attacked.hits(workspace, strict=False)
            assert not hits
        finally:
            await workspace.delete(force=True)
    assert not watch.seen
    return None


@pytest.mark.parametrize("kind", parameters(NAMES, ALWAYS))
async def test_a_tree_that_leads_into_git_or_out_is_not_checked_out(
    kind: str, attacked: Attacked, upstream: Path
) -> None:
    name = NAMES[kind]
    make_repository(upstream)
    inner = blob(upstream, f'[core]\nfsmonitor = "{attacked.arena.canary}"\n'.encode())
    commit = made(upstream, [("100644", b"config", inner)], "inner")
    tree = git(upstream, "rev-parse", f"{commit}^{{tree}}").strip()
    made(upstream, [("40000", name, tree)], "evil")
    error = await refused(attacked, upstream, "evil")
    assert error or name not in NEVER  # Harmless, if it is a plain name here.


async def test_two_entries_of_one_name_lead_nowhere(attacked: Attacked, upstream: Path) -> None:
    make_repository(upstream)
    link = blob(upstream, str(attacked.arena.drop).encode())
    content = blob(upstream, b"x\n")
    commit = made(upstream, [("100644", b"file", content)], "inner")
    tree = git(upstream, "rev-parse", f"{commit}^{{tree}}").strip()
    made(upstream, [("120000", b"a", link), ("40000", b"a", tree)], "twice")
    made(upstream, [("120000", b"A", link), ("40000", b"a", tree)], "cases")
    for branch in ("twice", "cases"):
        await refused(attacked, upstream, branch)
        assert attacked.arena.dropped() == []


@pytest.mark.parametrize(
    "name", parameters([".gitmodules", ".gitattributes", ".gitignore"], [".gitattributes"])
)
async def test_a_file_of_git_that_is_a_link_is_not_followed(
    name: str, attacked: Attacked, upstream: Path
) -> None:
    make_repository(upstream)
    link = blob(upstream, str(attacked.arena.secrets / "file").encode())
    made(upstream, [("120000", name.encode(), link)], "linked")
    await refused(attacked, upstream, "linked")


@pytest.mark.parametrize("number", parameters("0123", "2"))
async def test_submodules_are_never_fetched(
    number: str, attacked: Attacked, upstream: Path
) -> None:
    commit = make_repository(upstream)
    canary = attacked.arena.canary
    run = f"sh -c '{canary}'"
    urls = ["-uevil", f"--upload-pack={run}", f"ext::{run}", f"file://{attacked.arena.secrets}"]
    url = urls[int(number)]
    text = f'[submodule "../../x"]\n\tpath = sub\n\turl = "{url}"\n\tupdate = !{run}\n'
    modules = blob(upstream, text.encode())
    made(upstream, [("100644", b".gitmodules", modules), ("160000", b"sub", commit)], "sub")
    await refused(attacked, upstream, "sub")


async def test_what_an_origin_is_configured_to_run_is_not_run(
    attacked: Attacked, upstream: Path
) -> None:
    make_repository(upstream)
    (upstream / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    git(upstream, "add", "-A")
    git(upstream, "commit", "-qm", "Attributes")
    canary = attacked.arena.canary
    for key in (
        *("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv"),
        *("uploadpack.packObjectsHook", "core.fsmonitor", "core.alternateRefsCommand"),
        *("core.sshCommand", "merge.evil.driver", "receive.procReceiveRefs", "core.gitProxy"),
    ):
        git(upstream, "config", key, canary)
    hooks = upstream / ".git" / "hooks"
    for name in ("pre-receive", "update", "post-receive", "post-update", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\n{canary}\n")
        (hooks / name).chmod(0o755)
    assert await refused(attacked, upstream, "main") is None


@pytest.mark.parametrize(
    ("mode", "name"), [("40000", b".git"), ("120000", b".gitmodules"), ("40000", b"..")]
)
async def test_a_tree_that_cannot_be_checked_out_is_refused_with_a_reason(
    mode: str, name: bytes, attacked: Attacked, upstream: Path
) -> None:
    make_repository(upstream)
    content = blob(upstream, b"/etc/passwd")
    commit = made(upstream, [("100644", b"config", content)], "inner")
    tree = git(upstream, "rev-parse", f"{commit}^{{tree}}").strip()
    made(upstream, [(mode, name, content if mode == "120000" else tree)], "evil")
    error = await refused(attacked, upstream, "evil")
    assert error
    assert not isinstance(error, Internal)
    assert error.remedy
    # The rest of the repository is as usable as any.
    assert await refused(attacked, upstream, "main") is None


@pytest.mark.parametrize("place", ["objects/info/alternates", "objects", "refs/heads", "HEAD"])
async def test_an_origin_that_points_elsewhere_shows_nothing_of_another_tenant(
    place: str, attacked: Attacked, upstream: Path
) -> None:
    make_repository(upstream)
    store, commit = Path(attacked.variables["OTHER_OBJECTS"]), attacked.variables["OTHER_COMMIT"]
    (upstream / ".git" / "refs" / "heads" / "stolen").write_text(f"{commit}\n")
    target = upstream / ".git" / place
    if place == "objects/info/alternates":
        target.write_text(f"{store}\n")
    else:
        target.rename(upstream / "away")
        target.symlink_to(store if place == "objects" else attacked.arena.secrets / "file")
    assert await refused(attacked, upstream, "stolen") is not None


async def test_refs_of_any_name_are_only_names(attacked: Attacked, upstream: Path) -> None:
    commit = make_repository(upstream)
    heads = upstream / ".git" / "refs" / "heads"
    for name in ("-x", "--upload-pack=x", "a\nb", "@{-1}", "HEAD", "x.lock", "é", "refs"):
        (heads / name).write_text(f"{commit}\n")
    packed = upstream / ".git" / "packed-refs"
    packed.write_text(f"{commit} refs/heads/a b\n{commit} refs/cove/evil/head\n")
    assert await refused(attacked, upstream, "main") is None
    packed.write_text(f"{commit} refs/heads/../../../x\n")  # Git does not serve this one.
    assert await refused(attacked, upstream, "main") is not None
    stores = attacked.suite.state / "git" / "repositories" / attacked.tenant
    assert not list(stores.glob("*/refs/cove/evil"))
    assert not list(stores.glob("x"))


def bomb(upstream: Path, leaf: str, mode: str, depth: int, width: int = 10) -> None:
    """A branch of `width ** depth` files, all one object."""
    name = f"bomb{depth}"
    for level in range(depth):
        kind = mode if level == 0 else "40000"
        entries = [(kind, b"%02d" % number, leaf) for number in range(width)]
        leaf = git(upstream, "rev-parse", f"{made(upstream, entries, name)}^{{tree}}").strip()


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_tree_of_ten_thousand_million_files_is_refused(
    attacked: Attacked, upstream: Path
) -> None:
    make_repository(upstream)
    bomb(upstream, blob(upstream, b"x"), "100644", 10)
    assert await refused(attacked, upstream, "bomb10") is not None
    assert await refused(attacked, upstream, "main") is None


async def test_a_tree_deeper_than_any_path_is_refused_or_harmless(
    attacked: Attacked, upstream: Path
) -> None:
    make_repository(upstream)
    leaf, mode = blob(upstream, b"x"), "100644"
    for _ in range(40):
        commit = made(upstream, [(mode, b"d" * 250, leaf)], "deep")
        leaf, mode = git(upstream, "rev-parse", f"{commit}^{{tree}}").strip(), "40000"
    await refused(attacked, upstream, "deep")
    assert await refused(attacked, upstream, "main") is None


async def test_what_is_fetched_later_is_as_harmless(attacked: Attacked, upstream: Path) -> None:
    make_repository(upstream)
    config: Mapping[str, bytes] = {".git": b"config"}
    async with attacked.workspace(upstream) as workspace:
        inner = blob(upstream, b"x")
        commit = made(upstream, [("100644", config[".git"], inner)], "inner")
        tree = git(upstream, "rev-parse", f"{commit}^{{tree}}").strip()
        made(upstream, [("40000", b".git", tree)], "topic")
        target = attacked.target(workspace)
        await target.ask("FetchRepository", lambda: target.call("FetchRepository"))
        hits, _ = await attacked.hits(workspace, strict=False)
        assert not hits
        request = pb.ListCommitsRequest(uid=target.uid, revision="topic")
        answer = await target.ask("ListCommits", lambda: attacked.service.ListCommits(request))
        assert answer.failure or answer.message.commits
