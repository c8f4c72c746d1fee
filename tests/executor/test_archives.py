"""Archives in and out of a real sandbox: all of one or nothing, and nothing outside."""

import asyncio
import io
import os
import stat
import tarfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from servicekit.status import told
from tests.executor.node import OWNER, Caller, Node, Sandbox, refused, until
from tests.executor.test_files import leftovers, read, write
from tests.servicekit.failing import answered

Code = grpc.StatusCode


def archive(*members: tuple[str, Any], **fields: Any) -> bytes:
    """Name and content; None is a directory, a TarInfo itself."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", **fields) as tar:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            data = content if isinstance(content, bytes) else b""
            if isinstance(content, bytes):
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[str, tarfile.TarInfo]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


async def pack(caller: Caller, box: Sandbox, path: str = "") -> tuple[bytes, pb.ArchiveEnd]:
    data = bytearray()
    request = pb.ReadArchiveRequest(handle=box.handle, path=path)
    async for event in caller.files.ReadArchive(request, timeout=20):
        data += event.data
    assert event.end.bytes == len(data)
    return bytes(data), event.end


async def unpack(
    caller: Caller, box: Sandbox, path: str, data: bytes, *, end: bool = True, **fields: Any
) -> pb.Unpacked:
    async def requests() -> AsyncIterator[pb.WriteArchiveRequest]:
        header = pb.WriteArchiveHeader(handle=box.handle, path=path, **fields)
        yield pb.WriteArchiveRequest(header=header)
        for at in range(0, len(data), 100_000):
            yield pb.WriteArchiveRequest(data=data[at : at + 100_000])
        if end:
            yield pb.WriteArchiveRequest(end=pb.WriteFileEnd(bytes=len(data)))

    return (await answered(caller.files.WriteArchive(requests(), timeout=20))).unpacked


async def test_what_is_packed_is_unpacked_the_same(caller: Caller, box: Sandbox) -> None:
    long = "/".join(["directory" * 5] * 6)
    await caller.execute(
        box,
        "mkdir -p a/b empty && echo one > a/one && head -c 3000000 /dev/urandom > a/b/big && "
        f"mkdir -p {long} && echo deep > {long}/file && chmod 750 a && chmod 4711 a/one && "
        "ln -s ../one a/b/link && ln -s /etc/passwd out && mkfifo pipe && touch -d @1000000000 "
        "a/one && printf x > \"$(printf 'not\\377utf8')\"",
    )
    data, _ = await pack(caller, box, "a")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["b", "b/big", "b/link", "one"]
    whole, end = await pack(caller, box)
    assert end.skipped == 1
    assert (await pack(caller, box))[0] == whole
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        assert tar.getmember("out").linkname == "/etc/passwd"
        assert tar.getmember("a/one").mode == 0o711
        found = {os.fsencode(name) for name in tar.getnames()}
        assert {b"not\xffutf8", f"{long}/file".encode(), b"empty"} <= found
    unpacked = await unpack(caller, box, "copy", data)
    assert (unpacked.entries, unpacked.bytes) == (4, 3_000_004)
    copy = box.tree / "copy"
    assert (copy / "b/big").read_bytes() == (box.tree / "a/b/big").read_bytes()
    assert os.readlink(copy / "b/link") == "../one"  # noqa: PTH115
    one = (copy / "one").stat()
    assert (one.st_uid, one.st_mode & 0o7777, one.st_mtime) == (OWNER, 0o711, 1_000_000_000)
    assert (await pack(caller, box, "a/one"))[0][:3] == b"one"
    assert not leftovers(box)


HOSTILE = {
    "traversal": archive(("../evil", b"x")),
    "traversal within": archive(("a/../../evil", b"x")),
    "absolute": archive(("/workspace/evil", b"x")),
    "symlink and through it": archive(link("a", "."), ("a/evil", b"x")),
    "absolute symlink": archive(link("a", "/etc")),
    "symlink out": archive(link("d/a", "../../..")),
    "symlink out by another": archive(("d", None), link("d/a", ".."), link("b", "d/a/..")),
    "hard link out": archive(link("a", "/etc/passwd", tarfile.LNKTYPE)),
    "hard link up": archive(link("a", "../kept", tarfile.LNKTYPE)),
    "hard link to a link": archive(link("a", "b"), link("c", "a", tarfile.LNKTYPE)),
    "hard link to nothing": archive(link("a", "kept", tarfile.LNKTYPE)),
    "device": archive(link("a", "", tarfile.CHRTYPE)),
    "block device": archive(link("a", "", tarfile.BLKTYPE)),
    "pipe": archive(link("a", "", tarfile.FIFOTYPE)),
    "file over directory": archive(("a", None), ("a", b"x")),
    "directory over file": archive(("a", b"x"), ("a/b", b"x")),
    "truncated": archive(("a", bytes(5000)))[:3000],
    "without its end": archive(("a", bytes(5000)))[:5632],
    "no archive": b"hello" * 1000,
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_archive_leaves_nothing(caller: Caller, box: Sandbox, name: str) -> None:
    (box.tree / "kept").write_text("kept")
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_ARCHIVE_INVALID):
        await unpack(caller, box, "into", HOSTILE[name])
    assert [each.name for each in box.tree.iterdir()] == ["kept"]


async def test_a_large_archive_that_is_refused_at_once_says_why(
    caller: Caller, box: Sandbox
) -> None:
    data = archive(("/abs", b"x")) + bytes(20_000_000)
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_ARCHIVE_INVALID):
        await unpack(caller, box, ".", data)
    assert not list(box.tree.iterdir())


async def test_an_upload_that_breaks_off_changes_nothing(caller: Caller, box: Sandbox) -> None:
    data = archive(("a", bytes(500_000)), ("b", b"x"))
    async with refused(Code.ABORTED, Why.ERROR_REASON_UPLOAD_INCOMPLETE):
        await unpack(caller, box, ".", data, end=False)
    assert not list(box.tree.iterdir())
    staged = asyncio.Event()

    async def requests() -> AsyncIterator[pb.WriteArchiveRequest]:
        yield pb.WriteArchiveRequest(header=pb.WriteArchiveHeader(handle=box.handle))
        yield pb.WriteArchiveRequest(data=data[:400_000])
        await staged.wait()

    call = caller.files.WriteArchive(requests())

    async def begun() -> bool:
        return bool(list(box.tree.glob(".cove-*/a")))

    await until(begun)
    call.cancel()

    async def gone() -> bool:
        return not list(box.tree.iterdir())

    await until(gone)


async def test_an_archive_is_merged_into_what_is_there(caller: Caller, box: Sandbox) -> None:
    await caller.execute(
        box, "mkdir -p d/e && echo old > d/e/f && echo kept > d/kept && chmod 700 d"
    )
    data = archive(("d/e/f", b"new"), ("d/g", b"g"), ("h/i", b"i"), link("d/l", "g"))
    assert (await unpack(caller, box, "", data)).entries == 4
    assert await read(caller, box, "d/e/f") == b"new"
    assert await read(caller, box, "d/kept") == b"kept\n"
    assert await read(caller, box, "d/l") == b"g"
    assert stat.S_IMODE((box.tree / "d").stat().st_mode) == 0o700
    for wrong in (archive(("a", b"x"), ("d", b"x")), archive(("a", b"x"), ("d/g/x", b"x"))):
        async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_WRONG_FILE_TYPE):
            await unpack(caller, box, ".", wrong)
    assert sorted(each.name for each in box.tree.iterdir()) == ["d", "h"]


async def test_no_link_that_is_there_is_followed(caller: Caller, box: Sandbox) -> None:
    await caller.execute(box, "mkdir real && ln -s real alias && ln -s /home/cove home")
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_WRONG_FILE_TYPE):
        await unpack(caller, box, "", archive(("home/x", b"x")))
    await unpack(caller, box, "alias", archive(("x", b"x")))  # The path itself may be one.
    assert (box.tree / "real/x").read_bytes() == b"x"
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_PATH_OUTSIDE):
        await unpack(caller, box, "/etc", archive(("x", b"x")))
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_WRONG_FILE_TYPE):
        await unpack(caller, box, "real/x", archive(("x", b"x")))
    assert not leftovers(box)


@pytest.mark.parametrize("path", ["", ".", "/workspace", "/tmp", "/home/cove/", "new/.."])
async def test_a_root_is_a_place_too(caller: Caller, box: Sandbox, path: str) -> None:
    if ".." in path:
        await caller.execute(box, "mkdir new")
    await unpack(caller, box, path, archive(("sub/x", b"content")))
    assert await read(caller, box, f"{path or '.'}/sub/x") == b"content"
    assert b"sub/x" in (await pack(caller, box, path))[0]


async def test_directories_above_are_made_if_asked(caller: Caller, box: Sandbox) -> None:
    data = archive(("x", b"x"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unpack(caller, box, "a/b/c", data)
    assert caught.value.code() is Code.NOT_FOUND
    assert b"make_parents" in (told(caught.value) or pb.Unpacked()).SerializeToString()
    await unpack(caller, box, "a/b/c", data, make_parents=True)
    assert await read(caller, box, "a/b/c/x") == b"x"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await write(caller, box, "no/x", b"x")
    assert b"make_parents" in (told(caught.value) or pb.Unpacked()).SerializeToString()


async def test_the_same_request_is_unpacked_once(caller: Caller, box: Sandbox) -> None:
    fields: dict[str, Any] = {"request_id": str(uuid.uuid4())}
    data = archive(("x", b"one"))
    first = await unpack(caller, box, "d", data, **fields)
    await write(caller, box, "d/x", b"two")
    assert await unpack(caller, box, "d", data, **fields) == first
    assert await read(caller, box, "d/x") == b"two"
    async with refused(Code.ALREADY_EXISTS, Why.ERROR_REASON_REQUEST_ID_REUSED):
        await unpack(caller, box, "d", archive(("x", b"three")), **fields)
    assert not leftovers(box)


async def test_what_cannot_be_packed_is_refused(caller: Caller, box: Sandbox) -> None:
    await caller.execute(box, "mkfifo pipe; mkdir d; echo secret > d/x; chmod 0 d/x")
    for path, code, why in (
        ("none", Code.NOT_FOUND, Why.ERROR_REASON_FILE_NOT_FOUND),
        ("/etc", Code.INVALID_ARGUMENT, Why.ERROR_REASON_PATH_OUTSIDE),
        ("pipe", Code.FAILED_PRECONDITION, Why.ERROR_REASON_WRONG_FILE_TYPE),
        ("d", Code.PERMISSION_DENIED, Why.ERROR_REASON_FILE_PERMISSION),
    ):
        async with refused(code, why):
            await pack(caller, box, path)


async def test_what_a_killed_executor_left_is_removed(node: Node, box: Sandbox) -> None:
    with node.process() as process:
        async with grpc.aio.insecure_channel(process.address) as channel:

            async def requests() -> AsyncIterator[pb.WriteArchiveRequest]:
                yield pb.WriteArchiveRequest(header=pb.WriteArchiveHeader(handle=box.handle))
                yield pb.WriteArchiveRequest(data=archive(("a", bytes(500_000)))[:400_000])
                await asyncio.Event().wait()

            call = Caller(channel).files.WriteArchive(requests(), wait_for_ready=True)

            async def begun() -> bool:
                return bool(list(box.tree.glob(".cove-*/a")))

            await until(begun)
            process.kill()
            call.cancel()

    async def gone() -> bool:  # The helper sees that nobody is there.
        return not leftovers(box)

    await until(gone)


def test_nothing_of_this_reads_an_archive_outside() -> None:
    """Whatever it holds is read by the agent's helper, inside."""
    folder = Path(__file__).parent.parent.parent / "services/executor"
    assert (folder / "files/archives.py").exists()
    assert not [each for each in folder.rglob("*.py") if "tarfile" in each.read_text()]
