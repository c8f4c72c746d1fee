"""Each kind of disagreement: made by hand, seen, named, mended, and gone at the second look."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from agent import formats
from agent.launcher.cgroups import group_name
from agent.launcher_client import LauncherClient
from cove.registry.v1.registry_pb2 import Environment
from cove_server.check import leftovers
from services.git.record import decoded, layers_of
from tests.admin.conftest import State
from tests.support.repository import git
from tests.support.suite import running_suite

pytestmark = pytest.mark.timeout(240)  # The first one waits for a whole suite.
_NOBODY = "a" * 16


def copy_worktree(state: State) -> None:
    """As if the registry had lost the record of a workspace with work in it."""
    copy = state.worktree.with_name(_NOBODY)
    subprocess.run(["cp", "-a", "--", state.worktree, copy], check=True)
    record = json.loads((copy / "record.json").read_text())
    record.update(uid=_NOBODY, branch="cove/other")
    (copy / "record.json").write_text(json.dumps(record))


def remove_worktree(state: State) -> None:
    shutil.rmtree(state.worktree)


def remove_kept_work(state: State) -> None:
    shutil.rmtree(state.worktree.with_name(state.deleted))


def lose_the_record_of_a_worktree(state: State) -> None:
    (state.worktree / "record.json").write_bytes(b'{"version": 2')


def unprovision(state: State) -> None:
    shutil.rmtree(state.path / "provider" / "environments" / state.uid)


def provision_nobody(state: State) -> None:
    home = state.path / "provider" / "environments" / _NOBODY / "home"
    home.mkdir(parents=True)
    (home / "work").write_text("work")


def execute_for_nobody(state: State) -> None:
    executions = state.path / "executor" / "executions"
    subprocess.run(["cp", "-a", "--", executions / state.uid, executions / _NOBODY], check=True)


def add_a_ref(state: State) -> None:
    repository = state.repository()
    head = git(repository, "rev-parse", f"refs/cove/{state.uid}/head").strip()
    ref = repository / "refs" / "cove" / _NOBODY
    ref.mkdir()
    (ref / "head").write_text(f"{head}\n")
    owner = repository.stat()
    os.chown(ref, owner.st_uid, owner.st_gid)


def remove_a_ref(state: State) -> None:
    (state.repository() / "refs" / "cove" / state.uid / "head").unlink()


def damage_a_ref(state: State) -> None:
    (state.repository() / "refs" / "cove" / state.uid / "head").write_text("no id\n")


def add_a_layer(state: State) -> None:
    layer = state.path / "git" / "layers" / _NOBODY
    layer.mkdir()
    (layer / "work").write_text("work")


def leave_files(state: State) -> None:
    (state.worktree / ".record.json.0123abcd").write_bytes(b"half")


def leave_a_draft(state: State) -> None:
    (state.execution.parent / ".new-0123456789abcdef").mkdir()


def leave_a_restore(state: State) -> None:
    (state.path / "restore.new" / "registry").mkdir(parents=True)


def add_a_stranger(state: State) -> None:
    (state.path / "git" / "worktrees" / "Not-A-Uid").mkdir()


def damage_an_execution(state: State) -> None:
    (state.execution / "spec").write_bytes(b"{")


def damage_a_log(state: State) -> None:
    with (state.execution / "log").open("r+b") as file:
        file.seek(_second(state.execution / "log"))
        file.write(b"\xff" * 24)


def _second(log: Path) -> int:
    """Where the second record of a log begins."""
    with log.open("rb") as file:
        return formats.RECORD.size + int(formats.RECORD.unpack(file.read(formats.RECORD.size))[0])


def turn_the_counter_back(state: State) -> None:
    state.sql("UPDATE counter SET latest = latest - 2")


def make_a_hole_in_the_history(state: State) -> None:
    state.sql("DELETE FROM change WHERE revision = (SELECT max(revision) - 2 FROM change)")


def change_a_column(state: State) -> None:
    state.sql("UPDATE environment SET state = 4 WHERE uid = ?", state.uid)


def miscount(state: State) -> None:
    state.sql("UPDATE quota SET counted = counted + 3")


def keep_a_hash_of_no_token(state: State) -> None:
    state.sql("INSERT INTO token_hash VALUES (x'00', 'default', 'none', 1)")


def remove_the_checkout(state: State) -> None:
    shutil.rmtree(next((state.path / "git" / "checkouts").glob("*/*/*")))


def remove_the_files(state: State) -> None:
    shutil.rmtree(state.worktree / "upper")


def remove_a_layer(state: State) -> None:
    record = decoded((state.worktree / "record.json").read_bytes())
    shutil.rmtree(state.path / "git" / "layers" / layers_of(record)[0])


def remove_the_repository(state: State) -> None:
    shutil.rmtree(state.repository(state.own))


DAMAGES: dict[str, tuple[Callable[[State], None], ...]] = {
    "worktree-unknown": (copy_worktree,),
    "worktree-missing": (remove_worktree, remove_kept_work),
    "worktree-damaged": (lose_the_record_of_a_worktree,),
    "environment-missing": (unprovision,),
    "environment-unknown": (provision_nobody,),
    "executions-unknown": (execute_for_nobody,),
    "ref-unknown": (add_a_ref,),
    "ref-missing": (remove_a_ref, damage_a_ref),
    "layer-unknown": (add_a_layer,),
    "leftover": (leave_files, leave_a_draft, leave_a_restore),
    "stray": (add_a_stranger,),
    "execution-damaged": (damage_an_execution,),
    "log-damaged": (damage_a_log,),
    "registry-counter": (turn_the_counter_back,),
    "registry-history": (make_a_hole_in_the_history,),
    "registry-document": (change_a_column,),
    "registry-quota": (miscount,),
    "registry-token": (keep_a_hash_of_no_token,),
}
LOST: dict[str, Callable[[State], None]] = {
    "checkout-missing": remove_the_checkout,
    "files-missing": remove_the_files,
    "layer-missing": remove_a_layer,
    "repository-missing": remove_the_repository,
}
"""What only a backup, or the service, brings back."""
BY_THEMSELVES = {"repository-damaged", "registry-damaged", "mount", "cgroup", "sandbox-unknown"}
"""Kinds that have a test of their own below."""
CASES = [(kind, damage) for kind, damages in DAMAGES.items() for damage in damages]


async def test_what_was_worked_in_agrees(state: State) -> None:
    assert await state.look(deep=True) == []
    assert await state.mend() == []


@pytest.mark.parametrize(("kind", "damage"), CASES, ids=[each[1].__name__ for each in CASES])
async def test_it_is_named_and_mended(
    state: State, kind: str, damage: Callable[[State], None]
) -> None:
    damage(state)
    found = [each.kind for each in await state.look()]
    assert kind in found
    mended = await state.mend()
    assert [each for each in mended if each.problem or not each.done] == []
    assert kind in {each.finding.kind for each in mended}
    assert await state.look() == []
    assert await state.mend() == []


async def test_work_of_nobody_is_kept_with_all_it_stands_on(state: State) -> None:
    copy_worktree(state)
    await state.mend()
    lost = state.path / "lost+found" / _NOBODY
    kept = lost / f"git--worktrees--{_NOBODY}"
    assert (kept / "upper" / "later").read_text() == "uncommitted\n"
    # What was frozen where nothing ran is of the worktree and of its snapshot.
    layers = set(layers_of(decoded((kept / "record.json").read_bytes())))
    # The workspace stands on them, too: so they are copies.
    copies = [lost / f"git--layers--{each}" / "file" for each in layers]
    assert [each.read_text() for each in copies if each.exists()] == ["committed\n"]
    assert all((state.path / "git" / "layers" / each).is_dir() for each in layers)
    assert "no environment" in (lost / "NOTE").read_text()
    assert lost.parent.stat().st_mode & 0o077 == 0


async def test_commits_of_nobody_are_kept(state: State) -> None:
    add_a_ref(state)
    head = git(state.repository(), "rev-parse", f"refs/cove/{_NOBODY}/head")
    await state.mend()
    assert git(state.repository(), "rev-parse", f"refs/lost/cove/{_NOBODY}/head") == head


async def test_a_missing_ref_is_the_last_head_that_is_known(state: State) -> None:
    head = git(state.repository(), "rev-parse", f"refs/cove/{state.uid}/head")
    remove_a_ref(state)
    await state.mend()
    assert git(state.repository(), "rev-parse", f"refs/cove/{state.uid}/head") == head


async def test_a_workspace_without_files_is_failed_and_one_without_kept_work_gone(
    state: State,
) -> None:
    remove_worktree(state)
    remove_kept_work(state)
    await state.mend()
    assert state.state_of(state.uid) == Environment.STATE_FAILED
    assert state.state_of(state.deleted) is None
    assert state.state_of(state.own) == Environment.STATE_READY


async def test_a_log_is_cut_and_kept(state: State) -> None:
    log = state.execution / "log"
    whole = log.read_bytes()
    damage_a_log(state)
    await state.mend()
    at = _second(log)
    assert log.read_bytes() == whole[:at]
    [kept] = (state.path / "lost+found" / state.uid).glob("*--log")
    assert kept.read_bytes() == whole[:at] + b"\xff" * 24 + whole[at + 24 :]


@pytest.mark.parametrize("kind", LOST)
async def test_what_cannot_be_mended_is_left_and_told(state: State, kind: str) -> None:
    LOST[kind](state)
    mended = await state.mend()
    assert {(each.finding.kind, each.done, each.problem) for each in mended} == {(kind, "", "")}
    expected = "cove status" if kind == "checkout-missing" else "backup"
    assert all(expected in each.finding.remedy for each in mended)
    assert {each.kind for each in await state.look()} == {kind}
    if kind != "files-missing":
        assert (state.worktree / "upper" / "later").exists()


def test_every_kind_that_is_documented_has_a_test() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    table, _, _ = page[page.index("| found | what it is") :].partition("\n\n")
    rows = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    documented = {name for row in rows for name in re.findall("`([a-z-]+)`", row)}
    assert documented == DAMAGES.keys() | LOST.keys() | BY_THEMSELVES
    sources = "".join(
        path.read_text()
        for folder in ("cove_server/check", "services/git", "services/registry")
        for path in (Path(__file__).parents[2] / folder).glob("*.py")
    )
    made = re.compile(r'(?:Finding|Lack|Disagreement|_finding)\(\s*"([a-z]+(?:-[a-z]+)*)"')
    assert {*made.findall(sources)} <= documented


async def test_a_damaged_object_is_found_by_a_deep_look(state: State) -> None:
    pack = next((state.repository() / "objects" / "pack").glob("*.pack"))
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 0xFF
    pack.write_bytes(data)
    assert await state.look() == []
    assert [each.kind for each in await state.look(deep=True)] == ["repository-damaged"]


async def test_a_damaged_database_is_told_and_touched_by_nobody(state: State) -> None:
    with state.database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096 * 6))
    before = state.database.read_bytes()
    [mended] = await state.mend()
    assert (mended.finding.kind, mended.done) == ("registry-damaged", "")
    assert state.database.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts on the host")
async def test_a_mount_is_named_and_unmounted(state: State) -> None:
    place = state.path / "git" / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        assert [each.subject for each in await state.look()] == ["git/mounted"]
        await state.mend()
        assert not place.is_mount()
    finally:
        subprocess.run(["umount", "-q", place], check=False)
    assert await state.look() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes control groups here")
async def test_a_control_group_without_processes_is_removed(state: State) -> None:
    name = group_name(state.path / "run")
    root = next(leftovers.hierarchies(), None)
    if root is None:
        pytest.skip("no control groups are mounted")
    group = root / name / ("a" * 16)
    try:
        (group / "one").mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        assert [each.subject for each in await state.look()] == [str(group)]
        assert [each.done for each in await state.mend()] == ["removed"]
        assert not group.exists()
    finally:
        for path in (group / "one", group, root / name):
            with suppress(FileNotFoundError):
                path.rmdir()


@pytest.mark.long
async def test_a_sandbox_of_nobody_is_ended_and_its_files_are_kept(tmp_path: Path) -> None:
    async with running_suite(tmp_path, arguments=["--keep"]) as suite:
        async with suite.client() as cove:
            made = await cove.workspaces.create(id="demo")
            await made.start("sh", "-c", "echo work > file; exec sleep 600")
            uid = (await made.refresh()).uid
        assert await suite.stop() == 0
        with closing(sqlite3.connect(suite.state / "registry" / "registry.db")) as db, db:
            db.execute("DELETE FROM environment")
        where = ("--runtime", str(suite.runtime), "--json")
        checked = await suite.cove("admin", "check", *where)
        kinds = {each["kind"] for each in json.loads(checked.text)["findings"]}
        assert {"sandbox-unknown", "worktree-unknown"} <= kinds
        mended = await suite.cove("admin", "check", "--repair", *where)
        assert all(each["mended"] for each in json.loads(mended.text)["findings"])
        async with LauncherClient.connect(suite.runtime / "launcher") as launcher:
            assert not await launcher.list()
        kept = suite.state / "lost+found" / uid / f"git--worktrees--{uid}"
        assert (kept / "upper" / "file").read_text() == "work\n"


async def test_files_that_are_not_mounted_are_no_missing_worktrees(state: State) -> None:
    (state.path / "git" / "worktrees").rename(state.path / "git" / "elsewhere")
    with pytest.raises(Exception, match="worktrees is not there"):
        await state.mend()
    assert state.state_of(state.uid) == Environment.STATE_READY
