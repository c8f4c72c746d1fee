"""Directories, both ways; a workspace that sends what leads out writes nothing outside."""

import asyncio
import os
import tarfile
from pathlib import Path

import pytest

from cove import sync
from cove.client import Client
from cove.executor.v1.executor_pb2 import FileChange, WatchOverflow, WatchStarted
from cove.files import Copied, Files, UnsafeArchive
from tests.executor.test_archives import archive, link
from tests.sdk.double import Gateway, broken_off


@pytest.fixture
def files(cove: Client) -> Files:
    return cove.workspaces.named("demo").files


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "sub" / "run").write_bytes(bytes(300_000))
    (folder / "sub" / "run").chmod(0o755)
    os.utime(folder / "sub" / "run", (10**9, 10**9))
    (folder / "sub" / "link").symlink_to("../other")
    (folder / os.fsdecode(b"\xff")).write_bytes(b"x")
    (folder / "out").symlink_to("..")
    (folder / "far").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    return folder


async def test_a_directory_goes_there_and_back(
    files: Files, gateway: Gateway, source: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    up = await files.upload_directory(source, "there", on_progress=seen.append)
    assert up == Copied(2, 300_001, ["far", "out", "pipe"])
    assert seen[-1] == len(gateway.output)
    gateway.fragile = True  # The second attempt begins anew.
    back = tmp_path / "back"
    assert await files.download_directory("there", back) == Copied(2, 300_001, [])
    assert len(gateway.requests) == 3
    run = (back / "sub" / "run").stat()
    assert (run.st_size, run.st_mode & 0o777, run.st_mtime) == (300_000, 0o755, 10**9)
    assert (back / "sub" / "link").readlink() == Path("../other")
    assert (back / "sub" / "empty").is_dir()
    assert (back / os.fsdecode(b"\xff")).read_bytes() == b"x"
    assert sorted(each.name for each in back.iterdir()) == ["sub", os.fsdecode(b"\xff")]


def sparse() -> tuple[str, tarfile.TarInfo]:
    info = tarfile.TarInfo("s")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": str(1 << 60)}
    return "s", info


HOSTILE = {
    "traversal": archive(("../evil", b"x")),
    "absolute": archive(("/tmp/evil", b"x")),
    "late": archive(("fine", b"x"), ("a/../../evil", b"x")),
    "hard link": archive(link("a", "/etc/passwd", tarfile.LNKTYPE)),
    "device": archive(link("a", "", tarfile.CHRTYPE)),
    "sparse": archive(sparse(), format=tarfile.PAX_FORMAT),
    "NUL": archive(("a\0b" * 60, b"x"), format=tarfile.PAX_FORMAT),
    "damaged": archive(("a", b"x"))[:300] + b"\xff" * 700,
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_no_honest_workspace_sends_is_not_unpacked(
    files: Files, gateway: Gateway, tmp_path: Path, name: str
) -> None:
    gateway.output = HOSTILE[name]
    with pytest.raises(UnsafeArchive):
        await files.download_directory(".", tmp_path / "into")
    assert list(tmp_path.glob("*")) in ([], [tmp_path / "s"])


async def test_links_that_lead_out_are_left_out(
    files: Files, gateway: Gateway, tmp_path: Path
) -> None:
    gateway.output = archive(
        ("d", None),
        link("a", "/etc"),
        link("d/b", "../.."),
        link("d/up", ".."),
        link("c", "d/up/.."),
    )
    copied = await files.download_directory(".", tmp_path / "into")
    assert copied.skipped == ["a", "d/b", "c"]
    assert (tmp_path / "into/d/up").is_symlink()


async def test_no_link_that_is_there_is_followed(
    files: Files, gateway: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "into").mkdir()
    (tmp_path / "into/sub").symlink_to("../mine")
    (tmp_path / "into/file").symlink_to("../mine/file")
    for name in ("sub/evil", "sub"):
        gateway.output = archive((name, b"x") if "/" in name else (name, None))
        with pytest.raises(OSError, match=r"[Dd]irectory|symbolic"):
            await files.download_directory(".", tmp_path / "into")
    gateway.output = archive(link("new", "sub"), ("new/evil", b"x"))
    with pytest.raises(OSError, match=r"[Dd]irectory|symbolic"):
        await files.download_directory(".", tmp_path / "into")
    gateway.output = archive(("file", b"x"))
    await files.download_directory(".", tmp_path / "into")
    assert not list((tmp_path / "mine").iterdir())
    assert not list(tmp_path.rglob(".cove-*"))
    assert (tmp_path / "into/file").read_bytes() == b"x"


async def test_a_watch_goes_on_after_a_drop_and_says_so(files: Files, gateway: Gateway) -> None:
    gateway.later = [broken_off]
    kinds = [type(event) async for event in files.watch("src")]
    assert kinds == [WatchStarted, FileChange, WatchOverflow, FileChange]
    assert [each.path for each in gateway.requests] == ["src", "src"]


async def test_the_blocking_client_has_them(
    gateway: Gateway, address: str, source: Path, tmp_path: Path
) -> None:
    def work() -> None:
        with sync.Client(address) as cove:
            files = cove.workspaces.named("demo").files
            assert files.upload_directory(source, "x").files == 2
            assert files.download_directory("x", tmp_path / "y").files == 2
            assert [type(each) for each in files.watch()] == [WatchStarted, FileChange]

    await asyncio.to_thread(work)
