"""A disk without a free byte: what is there can be read, and any workspace can be deleted."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cove.client import Client
from cove.executor.v1.executor_pb2 import Chunk
from cove.status import ResourceExhausted
from cove.workspace import Workspace
from tests.support.repository import git, make_repository
from tests.support.suite import running_suite

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk"),
]
_SIZE = 256 << 20
_WORKS = {
    "idle": "",
    "dirty": "echo unsaved > file; head -c 300000 /dev/urandom > big",
    "inside": "git -c user.name=A -c user.email=a@b.c commit --allow-empty -qm inside",
    "running": "sleep 600 > /dev/null 2>&1 &",
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=0755", "cove-full", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def kept_full(disk: Path) -> Iterator[None]:
    """As a command would do it that writes all the time: whatever becomes free is gone at once."""
    full, over = threading.Event(), threading.Event()

    def write() -> None:
        with (disk / "ballast").open("ab", buffering=0) as ballast:
            while not over.is_set():
                for size in (1 << 20, 4096, 1):
                    with suppress(OSError):
                        while True:
                            ballast.write(bytes(size))
                full.set()
                over.wait(0.0005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert full.wait(60)
        yield
    finally:
        over.set()
        writer.join()
        (disk / "ballast").unlink()


async def worked_in(cove: Client, repository: Path, name: str) -> Workspace:
    made = await cove.workspaces.create(id=name, repository=f"file://{repository}")
    if work := _WORKS[name.rpartition("-")[0]]:
        done = await made.execute("sh", "-c", f"{work}\necho said", id=name)
        assert done.stdout == b"said\n"
    return made


async def output_of(workspace: Workspace) -> bytes:
    execution = workspace.executions.named(workspace.id)
    return b"".join([each.data async for each in execution.output() if isinstance(each, Chunk)])


def pack_refs(state: Path) -> Path:
    """As upkeep does it: then they can be removed only by writing all others anew."""
    (repository,) = (state / "git" / "repositories").glob("*/*.git")
    owner = repository.stat()
    git(repository, "pack-refs", "--all")
    os.chown(repository / "packed-refs", owner.st_uid, owner.st_gid)
    return repository


@pytest.mark.long
async def test_any_workspace_can_be_deleted_and_all_be_read(disk: Path, tmp_path: Path) -> None:
    make_repository(tmp_path / "app")
    async with running_suite(tmp_path, state=disk / "state") as suite:
        async with suite.client() as cove:
            names = [f"{name}-{how}" for name in _WORKS for how in ("keep", "force", "later")]
            made = {name: await worked_in(cove, tmp_path / "app", name) for name in names}
            repository = pack_refs(suite.state)
            with kept_full(disk):
                await deleted_and_read(cove, made)
                for name in ("idle-later", "running-later"):
                    await made.pop(name).delete(force=True)
            kept = await cove.workspaces.undelete("dirty-keep")
            assert await kept.read_text("file") == "unsaved\n"
            after = await worked_in(cove, tmp_path / "app", "idle-after")
            await after.delete()
            left = {each.id async for each in cove.workspaces.list()}
            assert left == {"dirty-keep", "dirty-later", "inside-later"}
        # Those whose refs could not be removed then have been removed with the last one.
        heads = git(repository, "for-each-ref", "--format=%(refname)", "refs/cove/").split()
        shown = await suite.cove("ls", "--all", "--json")
        uids = {each["uid"] for each in json.loads(shown.stdout)["workspaces"]}
        assert {name.split("/")[2] for name in heads} == uids
        checked = await suite.cove("admin", "check", "--runtime", str(suite.runtime))
        assert (checked.status, checked.text) == (0, "registry and disk agree\n")


async def deleted_and_read(cove: Client, made: dict[str, Workspace]) -> None:
    """All but those that are for later, of which all is read."""
    for name in list(made):
        if not name.endswith("later"):
            await made.pop(name).delete(force=name.endswith("force"))
    await refused(cove)
    assert {each.id async for each in cove.workspaces.list()} == made.keys()
    assert await made["idle-later"].read_text("README.md") == "hello\n"
    assert await output_of(made["dirty-later"]) == b"said\n"


async def refused(cove: Client) -> None:
    with pytest.raises(ResourceExhausted):
        await cove.workspaces.create(id="more")
