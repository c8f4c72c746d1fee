"""Backup and restore: nothing of what was told is missing, and nothing half-made is left."""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from cove.registry.v1 import registry_pb2 as pb
from cove_server.admin import backup, moving, reading, restore
from cove_server.admin.archive import Archive, created
from cove_server.admin.database import FileRegistry
from cove_server.admin.errors import Refused
from cove_server.admin.laying import lay_out
from cove_server.admin.walk import walk
from cove_server.places import Places
from servicekit.filters.filters import Filter
from services.registry import copying
from services.registry.config import Config
from services.registry.errors import RevisionCompacted
from services.registry.fields import FIELDS
from services.registry.rules import Rules
from services.registry.sqlite import SqliteStore
from services.registry.store import Key
from services.registry.watch import watch
from tests.admin.conftest import State, Worked
from tests.support.repository import git

pytestmark = pytest.mark.timeout(240)  # The first one waits for a whole suite.


def restored(
    source: Path, state: Path, runtime: Path, *, replace: bool = False
) -> dict[str, object]:
    registry = FileRegistry(Config(state=state, runtime=runtime))
    return restore.restore(
        restore.Asked(
            source=source, places=Places(state, runtime), registry=registry, replace=replace
        )
    )


def backed_up(state: State, target: Path, *, registry_only: bool = False) -> dict[str, object]:
    return backup.backup(
        backup.Asked(
            state=state.path,
            registry=state.registry,
            target=target,
            registry_only=registry_only,
        )
    )


def tree_of(root: Path) -> dict[str, tuple[object, ...]]:
    """What every file is: kind, mode, owner, time, and contents."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, names, files in os.walk(root):
        for name in [*names, *files]:
            path = Path(folder) / name
            seen = path.lstat()
            link = str(path.readlink()) if path.is_symlink() else None
            data = path.read_bytes() if stat.S_ISREG(seen.st_mode) else None
            marks = {} if link else {key: os.getxattr(path, key) for key in os.listxattr(path)}
            found[str(path.relative_to(root))] = (
                *(seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, seen.st_rdev),
                *(link, data, tuple(sorted(marks.items()))),
            )
    return found


async def test_a_backup_of_a_running_suite_has_all_that_was_told(
    short: Path, worked: Worked, tmp_path: Path
) -> None:
    assert worked.told.status == 0, worked.told.errors
    manifest = json.loads(worked.told.text)
    assert (manifest["environments"], manifest["left_out"], manifest["gone"]) == (3, 0, [])
    assert stat.S_IMODE(worked.backup.stat().st_mode) == 0o600
    assert [path.name for path in worked.backup.parent.glob(".backup*")] == []
    done = restored(worked.backup, tmp_path / "state", short)
    assert done["replaced"] is None
    state = State(tmp_path / "state", worked.uid, worked.own, worked.deleted)
    assert await state.look(deep=True) == []
    for part in ("upper", "record.json"):
        path = Path("git/worktrees") / worked.uid
        before, after = (each / path for each in (worked.state, state.path))
        if part == "upper":
            assert tree_of(after / part) == tree_of(before / part)
        else:
            assert (after / part).read_bytes() == (before / part).read_bytes()
    home = Path("provider/environments") / worked.uid / "home"
    assert tree_of(state.path / home) == tree_of(worked.state / home)
    runs = Path("executor/executions") / worked.uid
    assert tree_of(state.path / runs).keys() == tree_of(worked.state / runs).keys()
    head = f"refs/cove/{worked.uid}/head"
    assert git(state.repository(), "log", "--format=%s", head) == "Work\nFirst\n"
    token = Path("registry/token")
    assert (state.path / token).read_bytes() == (worked.state / token).read_bytes()


def test_a_backup_of_the_registry_alone_is_small_and_replaces_that_alone(
    short: Path, state: State, tmp_path: Path
) -> None:
    target = tmp_path / "registry.tar"
    backed_up(state, target, registry_only=True)
    with tarfile.open(target) as tar:
        assert {name.split("/")[0] for name in tar.getnames()} == {
            "registry", "SHA256SUMS", "manifest.json",
        }  # fmt: skip
    state.sql("DELETE FROM environment")
    restored(target, state.path, short, replace=True)
    assert state.state_of(state.uid) == pb.Environment.STATE_READY
    assert (state.worktree / "upper" / "later").exists()


def test_it_overwrites_nothing_and_names_itself_in_a_directory(
    state: State, tmp_path: Path
) -> None:
    target = tmp_path / "there"
    target.write_text("mine")
    with pytest.raises(Refused, match="is there already"):
        backed_up(state, target, registry_only=True)
    assert target.read_text() == "mine"
    folder = tmp_path / "backups"
    folder.mkdir()
    told = backed_up(state, folder, registry_only=True)
    assert [str(path) for path in folder.iterdir()] == [told["file"]]


def test_other_programs_can_read_and_check_it(worked: Worked, tmp_path: Path) -> None:
    subprocess.run(["tar", "-C", tmp_path, "-xf", worked.backup], check=True)
    command = ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).stdout == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_leaves_nothing_half_made(
    short: Path, worked: Worked, state: State, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", small], check=True)
    try:
        with pytest.raises((OSError, Refused)):
            backed_up(state, small / "backup.tar")
        assert list(small.iterdir()) == []
        with pytest.raises((OSError, Refused)):
            restored(worked.backup, small / "state", short)
        assert list((small / "state").glob("re*")) == []
    finally:
        subprocess.run(["umount", small], check=True)


def flipped(data: bytes) -> bytes:
    at = data.index(b"uncommitted\n")
    return data[:at] + b"X" + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped byte": flipped,
    "cut short": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "no tar": lambda data: b"x" * 4096,
    "a later version": lambda data: data.replace(b'"version": 1,', b'"version": 2,'),
    "of somebody else": lambda data: (
        data.replace(b'"owner": "root"', b'"owner": "user"')
        if os.geteuid() == 0
        else data.replace(b'"owner": "user"', b'"owner": "root"')
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_backup_that_is_not_as_it_was_is_refused_before_anything_is_touched(
    short: Path, worked: Worked, state: State, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    source = tmp_path / "damaged.tar"
    source.write_bytes(damage(worked.backup.read_bytes()))
    before = set(state.path.iterdir())
    with pytest.raises(Refused) as refused:
        restored(source, state.path, short, replace=True)
    assert refused.value.remedy
    assert {each.name for each in {*state.path.iterdir()} - before} <= {"run", "logs"}
    assert state.state_of(state.uid) == pb.Environment.STATE_READY


def test_a_state_that_is_there_is_replaced_only_when_that_is_asked_for_and_kept(
    short: Path, worked: Worked, state: State
) -> None:
    with pytest.raises(Refused, match="already"):
        restored(worked.backup, state.path, short)
    (state.path / "registry" / "mine").write_text("mine")
    done = restored(worked.backup, state.path, short, replace=True)
    kept = Path(str(done["replaced"]))
    assert (kept / "registry" / "mine").read_text() == "mine"
    assert (kept / "git" / "worktrees" / state.uid / "upper" / "later").exists()
    assert not (state.path / "registry" / "mine").exists()
    assert not (state.path / moving.MAKING).exists()


def test_it_is_refused_while_somebody_has_the_state_directory(
    short: Path, worked: Worked, state: State
) -> None:
    with (
        Places(state.path, short).held(),
        pytest.raises(Refused, match="another `cove up`"),
    ):
        restored(worked.backup, state.path, short, replace=True)


# To be run with -B: compiled modules are renamed into their place, too.
KILLED = """
import os, sys
left = int(sys.argv.pop(1))
def hook(event, _):
    global left
    if event == "os.rename":
        left -= 1
        if left < 0:
            os._exit(9)
sys.addaudithook(hook)
from cove.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def killed_restore(worked: Worked, state: State, short: Path, renames: int) -> int:
    argv = [sys.executable, "-B", "-P", "-c", KILLED, str(renames), "admin", "restore"]
    argv += [str(worked.backup), "--replace", "--state", str(state.path), "--runtime", str(short)]
    return subprocess.run(argv, capture_output=True, timeout=60).returncode


@pytest.mark.parametrize(
    "renames",
    [0, 5, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11))],
)
async def test_a_kill_leaves_the_old_state_or_the_new_one(
    short: Path, worked: Worked, state: State, renames: int
) -> None:
    (state.path / "registry" / "old").write_text("old")
    status = killed_restore(worked, state, short, renames)
    with Places(state.path, short).held():
        pass  # As `cove up` begins.
    new = not (state.path / "registry" / "old").exists()
    assert status == 9 or new
    assert len([*state.path.glob("replaced-*")]) == new
    leftovers = [each.subject for each in await state.look()]
    assert leftovers == ([] if new else leftovers)
    assert set(leftovers) <= {"restore.new", ".restore.json.new"}
    assert [each for each in await state.mend() if not each.done] == []
    assert await state.look(deep=True) == []


async def test_who_followed_the_life_before_is_told_and_no_token_comes_again(
    short: Path, worked: Worked, state: State, tmp_path: Path
) -> None:
    rules = Rules(lambda: 10**18)
    request = pb.ClaimOperationRequest(
        name="environments/work", operation=pb.Environment.OPERATION_UPDATING, holder="one"
    )
    request.lease.FromSeconds(10**6)
    key = Key("default", "environments/work")
    async with SqliteStore.open(state.database) as store:
        answer = await store.write(key, lambda found, number: rules.claim(request, found, number))
    target = tmp_path / "held.tar"
    backed_up(state, target)
    async with SqliteStore.open(state.database) as store:  # Goes on, and is lost.
        for _ in range(20):
            answer = await store.write(
                key, lambda found, number: rules.claim(request, found, number)
            )
        lost = (await store.span()).latest
    token = pb.ClaimOperationResponse.FromString(answer).environment.fencing_token
    restored(target, tmp_path / "again", short)
    first = copying.describe(tmp_path / "again" / "registry" / "registry.db").revision
    restored(target, tmp_path / "again", short, replace=True)
    async with SqliteStore.open(tmp_path / "again" / "registry" / "registry.db") as store:
        assert (await store.span()).latest > first > lost
        for revision in (1, lost, first - 1, first):
            with pytest.raises(RevisionCompacted):
                await anext(watch(store, None, revision, timedelta(seconds=1), Filter("", FIELDS)))
        # The lease of whoever had it is over, and somebody else's token is larger than any before.
        request.holder = "two"
        answer = await store.write(key, lambda found, number: rules.claim(request, found, number))
        claimed = pb.ClaimOperationResponse.FromString(answer).environment
        assert claimed.operation_holder == "two"
        assert claimed.fencing_token > first > token


def test_refs_of_worktrees_that_came_or_went_meanwhile_are_taken_out(
    short: Path, state: State, tmp_path: Path
) -> None:
    repository, nobody = state.repository(), "a" * 16
    head = git(repository, "rev-parse", f"refs/cove/{state.uid}/head").strip()
    names = (f"refs/cove/{nobody}/head", f"refs/cove/{nobody}/snapshots/one/head")
    for name in names:
        git(repository, "update-ref", name, head)
    git(repository, "pack-refs", "--all")
    loose = repository / "refs" / "notes" / "cove"
    loose.mkdir(parents=True, exist_ok=True)
    (loose / nobody).write_text(f"{head}\n")
    backed_up(state, tmp_path / "backup.tar")
    restored(tmp_path / "backup.tar", tmp_path / "again", short)
    after = State(tmp_path / "again", state.uid, state.own, state.deleted).repository()
    told = git(after, "for-each-ref", "--format=%(refname)").split()
    assert [name for name in told if nobody in name] == []
    assert f"refs/cove/{state.uid}/head" in told
    before = git(repository, "for-each-ref", "--format=%(refname)").split()
    assert set(before) - set(told) == {*names, f"refs/notes/cove/{nobody}"}


async def test_who_is_deleted_meanwhile_is_not_in_it(state: State, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copying.copy(state.database, copy)
    state.sql("DELETE FROM environment WHERE uid = ?", state.own)
    deleting = pb.Environment.STATE_DELETING
    state.sql("UPDATE environment SET state = ? WHERE uid = ?", deleting, state.uid)
    assert copying.settle(copy, state.database) == [state.own]
    assert copying.marks(copy) == copying.marks(state.database)


async def test_a_token_that_is_revoked_meanwhile_is_so_in_it(state: State, tmp_path: Path) -> None:
    for id_ in ("kept", "ended"):
        token = f"('default', '{id_}', 1, '', '', '', 'admin', 1, 9, 0)"
        state.sql(f"INSERT INTO token VALUES {token}")
        state.sql("INSERT INTO token_hash VALUES (?, 'default', ?, 1)", id_.encode(), id_)
    copy = tmp_path / "copy.db"
    copying.copy(state.database, copy)
    state.sql("UPDATE token SET revoke_time = 5 WHERE id = 'ended'")
    state.sql("DELETE FROM token_hash WHERE id = 'ended'")
    copying.settle(copy, state.database)
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT id FROM token_hash").fetchall() == [("kept",)]
        assert db.execute("SELECT id FROM token WHERE revoke_time = 5").fetchall() == [("ended",)]


def test_a_file_is_as_it_was(tmp_path: Path) -> None:
    source, target = tmp_path / "git", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "name\nwith \\ all").write_text("1")
    Path(os.fsdecode(os.fsencode(source) + b"/\xff\xfe")).write_bytes(b"\0\xff")
    for name, parts in {"start": [(0, b"a")], "end": [(1 << 20, b"b")], "none": []}.items():
        with (source / name).open("wb") as file:
            for offset, data in parts:
                file.seek(offset)
                file.write(data)
            file.truncate(2 << 20)
    (source / ("long" * 60)).mkdir(mode=0o500)
    os.link(source / "start", source / "linked")
    (source / "link").symlink_to("/etc/passwd\n")
    os.mkfifo(source / "fifo", 0o640)
    os.setxattr(source / "end", "user.overlay.x", b"\0\xff\n=")
    os.utime(source / "end", ns=(1, 1_234_567_890_123_456_789))
    os.utime(source, ns=(1, 99))
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with created(tmp_path / "tar") as tar, Archive(tar) as archive:
            for seen in walk(folder, "git"):
                archive.add(seen.path, seen.descriptor)
            archive.finish({"version": 1})
    finally:
        os.close(folder)
    lay_out(target, reading.entries(tmp_path / "tar"))
    assert tree_of(target) == {f"git/{k}": v for k, v in tree_of(source).items()} | {
        "git": tree_of(tmp_path)["git"]
    }
    assert (target / "git" / "linked").samefile(target / "git" / "start")
    assert (target / "git" / "none").stat().st_blocks * 512 < 1 << 20
    assert (tmp_path / "tar").stat().st_size < 1 << 20


@pytest.mark.parametrize("name", ["../out", "git/../../out", "/git/out", "other/out", "git//out"])
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    (tmp_path / "root").mkdir()
    with pytest.raises(Refused, match="no backup has"):
        lay_out(tmp_path / "root", reading.entries(tmp_path / "tar"))


def test_no_link_leads_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tar", "w") as tar:
        link = tarfile.TarInfo("git/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "out")
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("git/link/file"))
    (tmp_path / "out").mkdir()
    (tmp_path / "root").mkdir()
    with pytest.raises(OSError, match="directory"):
        lay_out(tmp_path / "root", reading.entries(tmp_path / "tar"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_link_that_takes_a_place_meanwhile_is_not_followed(tmp_path: Path) -> None:
    """What a sandbox puts in place of a directory, between the look and the opening."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("key")
    inside = tmp_path / "git"
    (inside / "folder").mkdir(parents=True)
    folder = os.open(tmp_path, os.O_RDONLY)
    found = []
    try:
        for seen in walk(folder, "git"):
            found.append(seen.path)
            if seen.path == "git" and (inside / "folder").is_dir():
                shutil.rmtree(inside / "folder")
                (inside / "folder").symlink_to(secret)
    finally:
        os.close(folder)
    assert "git/folder/key" not in found


def test_the_copy_of_a_database_has_no_history(state: State, tmp_path: Path) -> None:
    copying.copy(state.database, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as db:
        assert db.execute("SELECT count(*) FROM change").fetchone() == (0,)
        assert db.execute("SELECT latest - compacted FROM counter").fetchone() == (0,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
