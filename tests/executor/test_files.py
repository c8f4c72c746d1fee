"""FileService on a real sandbox: whole, atomic, and never outside."""

import asyncio
import os
import socket
import stat
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.handle import Handle
from cove.errors.v1.errors_pb2 import ErrorReason as Why
from cove.executor.v1 import executor_pb2 as pb
from servicekit.status import reason
from tests.executor.node import NODE, OWNER, Caller, Node, Sandbox, calling, refused, until
from tests.servicekit.failing import answered
from tests.support.walking import all_in

Code = grpc.StatusCode
SECRET = b"secret of the host"


async def read(caller: Caller, box: Sandbox, path: str, **fields: Any) -> bytes:
    data = bytearray()
    request = pb.ReadFileRequest(handle=box.handle, path=path, **fields)
    kinds = []
    async for event in caller.files.ReadFile(request, timeout=20):
        kinds.append(event.WhichOneof("event"))
        data += event.data
    assert (kinds[0], kinds[-1]) == ("file", "end")
    assert event.end.bytes == len(data)
    return bytes(data)


async def write(caller: Caller, box: Sandbox, path: str, *parts: bytes, **fields: Any) -> pb.File:
    async def requests() -> AsyncIterator[pb.WriteFileRequest]:
        header = pb.WriteFileHeader(handle=box.handle, path=path, **fields)
        yield pb.WriteFileRequest(header=header)
        for part in parts:
            yield pb.WriteFileRequest(data=part)
        yield pb.WriteFileRequest(end=pb.WriteFileEnd(bytes=sum(map(len, parts))))

    return (await answered(caller.files.WriteFile(requests(), timeout=20))).file


async def look(caller: Caller, box: Sandbox, path: str) -> pb.File:
    request = pb.StatFileRequest(handle=box.handle, path=path)
    return (await caller.files.StatFile(request, timeout=20)).file


def leftovers(box: Sandbox) -> list[Path]:
    return [each for each in all_in(box.tree) if each.name.startswith(".cove-")]


async def test_a_file_is_written_and_read_whole(caller: Caller, box: Sandbox) -> None:
    content = os.urandom(3_000_000)
    parts = [content[at : at + 700_000] for at in range(0, len(content), 700_000)]
    written = await write(caller, box, "new.bin", *parts, mode=0o755)
    assert (written.kind, written.size, written.mode) == (pb.File.KIND_FILE, 3_000_000, 0o755)
    assert await read(caller, box, "new.bin") == content
    assert (
        await read(caller, box, "/workspace/new.bin", offset=5, limit=70_000) == (content[5:70_005])
    )
    assert await read(caller, box, "new.bin", offset=len(content)) == b""
    async with refused(Code.OUT_OF_RANGE, Why.ERROR_REASON_OFFSET_OUT_OF_RANGE):
        await read(caller, box, "new.bin", offset=len(content) + 1)
    found = (box.tree / "new.bin").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (OWNER, 0o755)
    assert (await look(caller, box, "new.bin")).etag == written.etag
    assert not leftovers(box)


async def test_who_is_refused_while_sending_is_told_why(node: Node) -> None:
    nobody = Handle(driver="local", node=NODE, uid="a" * 16).encode()
    parts = [bytes(10_000)] * 20
    box = Sandbox("a" * 16, nobody, Path())

    async def told(caller: Caller) -> int:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await write(caller, box, "f", *parts)
        return reason(caught.value)

    with node.process() as process:
        async with calling(process.address) as caller:
            for _ in range(3):
                reasons = await asyncio.gather(*(told(caller) for _ in range(100)))
                assert set(reasons) == {Why.ERROR_REASON_ENVIRONMENT_DORMANT}


async def test_a_file_keeps_its_mode_when_written_again(caller: Caller, box: Sandbox) -> None:
    await write(caller, box, "run.sh", b"one", mode=0o700)
    assert (await write(caller, box, "run.sh", b"two")).mode == 0o700
    assert (await write(caller, box, "plain", b"")).mode == 0o644
    assert await read(caller, box, "run.sh") == b"two"


async def test_etags_make_a_write_conditional(caller: Caller, box: Sandbox) -> None:
    first = await write(caller, box, "a", b"one")
    second = await write(caller, box, "a", b"two", etag=first.etag)
    async with refused(Code.ABORTED, Why.ERROR_REASON_FILE_CHANGED):
        await write(caller, box, "a", b"three", etag=first.etag)
    async with refused(Code.ABORTED, Why.ERROR_REASON_FILE_CHANGED):
        await write(caller, box, "none", b"three", etag=first.etag)
    (box.tree / "a").write_text("2")
    async with refused(Code.ABORTED, Why.ERROR_REASON_FILE_CHANGED):
        await write(caller, box, "a", b"three", etag=second.etag)
    assert not leftovers(box)


async def test_of_many_conditional_writers_one_wins(caller: Caller, box: Sandbox) -> None:
    first = await write(caller, box, "a", b"start")
    results = await asyncio.gather(
        *(write(caller, box, "a", b"%d" % n, etag=first.etag) for n in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, pb.File) for each in results) == 1
    results = await asyncio.gather(
        *(write(caller, box, "b", b"%d" % n, must_not_exist=True) for n in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, pb.File) for each in results) == 1
    assert not leftovers(box)


async def test_parents_are_made_only_if_asked(caller: Caller, box: Sandbox) -> None:
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_FILE_NOT_FOUND):
        await write(caller, box, "x/y/z", b"deep")
    await write(caller, box, "x/y/z", b"deep", make_parents=True)
    assert await read(caller, box, "x/y/z") == b"deep"
    await write(caller, box, "/workspace/x/w/z", b"deeper", make_parents=True)
    assert await read(caller, box, "x/w/z") == b"deeper"


async def test_a_write_that_breaks_off_changes_nothing(caller: Caller, box: Sandbox) -> None:
    await write(caller, box, "a", b"old")
    sent = asyncio.Event()

    async def requests() -> AsyncIterator[pb.WriteFileRequest]:
        yield pb.WriteFileRequest(header=pb.WriteFileHeader(handle=box.handle, path="a"))
        yield pb.WriteFileRequest(data=b"half")
        sent.set()
        await asyncio.Event().wait()

    call = caller.files.WriteFile(requests())
    await sent.wait()
    call.cancel()

    async def clean() -> bool:
        return not leftovers(box)

    await until(clean)
    assert (box.tree / "a").read_text() == "old"


@pytest.mark.parametrize("end", [None, 3, 5])
async def test_a_write_without_its_right_end_changes_nothing(
    caller: Caller, box: Sandbox, end: int | None
) -> None:
    header = pb.WriteFileHeader(handle=box.handle, path="a")
    parts = [pb.WriteFileRequest(header=header), pb.WriteFileRequest(data=b"half")]
    if end is not None:
        parts.append(pb.WriteFileRequest(end=pb.WriteFileEnd(bytes=end)))
    async with refused(Code.ABORTED, Why.ERROR_REASON_UPLOAD_INCOMPLETE):
        await answered(caller.files.WriteFile(iter(parts)))
    assert not list(box.tree.iterdir())


async def test_callers_that_leave_while_their_write_is_committed_harm_nothing(
    caller: Caller, box: Sandbox
) -> None:
    for number in range(60):
        request_id = str(uuid.uuid4())
        call = asyncio.ensure_future(
            write(caller, box, f"f{number}", b"whole", request_id=request_id, mode=0o600)
        )
        await asyncio.wait((call,), timeout=0.0002 * number)
        call.cancel()
    other = await asyncio.gather(*(write(caller, box, f"g{n}", b"x") for n in range(20)))
    assert {each.mode for each in other} == {0o644}

    async def clean() -> bool:
        return not leftovers(box)

    await until(clean)
    for number in range(60):
        path = box.tree / f"f{number}"
        assert not path.exists() or path.read_bytes() == b"whole"


async def test_a_repeated_write_is_one_write(caller: Caller, box: Sandbox) -> None:
    request_id = str(uuid.uuid4())
    first = await write(caller, box, "a", b"x", must_not_exist=True, request_id=request_id)
    again = await write(caller, box, "b", b"x", must_not_exist=True)
    assert again.etag != first.etag
    async with refused(Code.ALREADY_EXISTS, Why.ERROR_REASON_REQUEST_ID_REUSED):
        await write(caller, box, "b2", b"y", request_id=request_id)
    async with refused(Code.ALREADY_EXISTS, Why.ERROR_REASON_FILE_EXISTS):
        await write(caller, box, "a", b"x", must_not_exist=True)


async def test_a_write_goes_through_a_link_inside(caller: Caller, box: Sandbox) -> None:
    (box.tree / "real").write_text("old")
    os.chown(box.tree / "real", OWNER, OWNER)
    (box.tree / "sub").mkdir()
    (box.tree / "sub" / "link").symlink_to("../real")
    await write(caller, box, "sub/link", b"new")
    assert (box.tree / "real").read_text() == "new"
    assert (box.tree / "sub" / "link").is_symlink()
    assert await read(caller, box, "sub/link") == b"new"
    found = await look(caller, box, "sub/link")
    assert (found.kind, found.link_target) == (pb.File.KIND_SYMLINK, "../real")


async def test_the_header_must_come_first_and_once(caller: Caller, box: Sandbox) -> None:
    header = pb.WriteFileRequest(header=pb.WriteFileHeader(handle=box.handle, path="a"))
    data = pb.WriteFileRequest(data=b"x")
    for parts in ([data, header], [header, data, header], []):
        async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_INVALID_FIELD):
            await answered(caller.files.WriteFile(iter(parts)))
    assert not list(box.tree.iterdir())


async def test_directories_are_listed_in_pages_by_name(caller: Caller, box: Sandbox) -> None:
    folder = box.tree / "d"
    folder.mkdir()
    names = [b"a", b"b\xff", b"c c", "é".encode(), b"z\n"]
    for name in names:
        Path(os.fsdecode(bytes(folder) + b"/" + name)).touch()
    request = pb.ListFilesRequest(handle=box.handle, path="d", page_size=2)
    found: list[bytes] = []
    while True:
        page = await caller.files.ListFiles(request)
        found += [each.raw_path or each.path.encode() for each in page.files]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == [b"d/" + name for name in sorted(names)]
    raw = pb.StatFileRequest(handle=box.handle, raw_path=b"d/b\xff")
    assert (await caller.files.StatFile(raw)).file.raw_path == b"d/b\xff"
    root = await caller.files.ListFiles(pb.ListFilesRequest(handle=box.handle))
    assert [each.path for each in root.files] == ["d"]
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_WRONG_FILE_TYPE):
        await caller.files.ListFiles(pb.ListFilesRequest(handle=box.handle, path="d/a"))


async def test_directories_are_made_and_removed(caller: Caller, box: Sandbox) -> None:
    def make(path: str, *, parents: bool = False) -> Any:
        return caller.files.MakeDirectory(
            pb.MakeDirectoryRequest(handle=box.handle, path=path, make_parents=parents)
        )

    def remove(path: str, **fields: Any) -> Any:
        return caller.files.RemoveFile(pb.RemoveFileRequest(handle=box.handle, path=path, **fields))

    assert (await make("a")).file.kind == pb.File.KIND_DIRECTORY
    await make("a")
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_FILE_NOT_FOUND):
        await make("b/c")
    await make("b/c", parents=True)
    await write(caller, box, "a/file", b"x")
    async with refused(Code.ALREADY_EXISTS, Why.ERROR_REASON_FILE_EXISTS):
        await make("a/file")
    async with refused(Code.ALREADY_EXISTS, Why.ERROR_REASON_FILE_EXISTS):
        await make("a/file/below", parents=True)
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_DIRECTORY_NOT_EMPTY):
        await remove("a")
    async with refused(Code.ABORTED, Why.ERROR_REASON_FILE_CHANGED):
        await remove("a/file", etag="other")
    await remove("a/file", etag=(await look(caller, box, "a/file")).etag)
    await remove("b", recursive=True)
    async with refused(Code.NOT_FOUND, Why.ERROR_REASON_FILE_NOT_FOUND):
        await remove("b")
    await remove("b", allow_missing=True)
    async with refused(Code.PERMISSION_DENIED, Why.ERROR_REASON_FILE_PERMISSION):
        await remove("/workspace", recursive=True)


async def test_moves_replace_only_if_asked(caller: Caller, box: Sandbox) -> None:
    def move(path: str, new_path: str, **fields: Any) -> Any:
        return caller.files.MoveFile(
            pb.MoveFileRequest(handle=box.handle, path=path, new_path=new_path, **fields)
        )

    await write(caller, box, "a", b"a")
    await write(caller, box, "b", b"b")
    async with refused(Code.ALREADY_EXISTS, Why.ERROR_REASON_FILE_EXISTS):
        await move("a", "b")
    assert (await move("a", "b", overwrite=True)).file.path == "b"
    assert await read(caller, box, "b") == b"a"
    for missing in (("a", "c"), ("b", "none/c")):
        async with refused(Code.NOT_FOUND, Why.ERROR_REASON_FILE_NOT_FOUND):
            await move(*missing)
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_PATH_OUTSIDE):
        await move("b", "/tmp/b")
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_PATH_OUTSIDE):
        await move("b", "../b")


async def test_home_and_tmp_are_part_of_the_workspace(caller: Caller, box: Sandbox) -> None:
    for path in ("/home/cove/notes", "/tmp/notes"):
        assert (await write(caller, box, path, b"kept")).path == path
        assert await read(caller, box, path) == b"kept"


OUTSIDE = [
    ("../../../../etc/passwd", None),
    ("/etc/passwd", None),
    ("/proc/self/environ", None),
    ("/.cove/lib/agent/frames.py", None),
    ("sub/../../x", lambda tree: (tree / "sub").mkdir()),
    ("link", lambda tree: (tree / "link").symlink_to("/etc/passwd")),
    ("link", lambda tree: (tree / "link").symlink_to("../../../../etc/passwd")),
    ("link/passwd", lambda tree: (tree / "link").symlink_to("/etc")),
    ("link/environ", lambda tree: (tree / "link").symlink_to("/proc/1")),
    ("a", lambda tree: ((tree / "a").symlink_to("b"), (tree / "b").symlink_to("/etc/passwd"))),
]


@pytest.mark.parametrize(("path", "prepare"), OUTSIDE)
async def test_nothing_outside_is_read_or_written(
    caller: Caller, box: Sandbox, path: str, prepare: Callable[[Path], object] | None
) -> None:
    if prepare:
        prepare(box.tree)
    for call in (read(caller, box, path), write(caller, box, path, b"x")):
        async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_PATH_OUTSIDE):
            await call


SPECIAL: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
    "directory": lambda path: path.mkdir(),
    "device": lambda path: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3)),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_only_regular_files_are_read_and_nothing_waits(
    caller: Caller, box: Sandbox, kind: str
) -> None:
    if kind == "device" and os.getuid() != 0:
        pytest.skip("devices need root")
    SPECIAL[kind](box.tree / "x")
    (box.tree / "link").symlink_to("x")
    async with asyncio.timeout(30):
        for path in ("x", "link"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read(caller, box, path)
            assert caught.value.code() in (Code.FAILED_PRECONDITION, Code.PERMISSION_DENIED)
            async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_WRONG_FILE_TYPE):
                await write(caller, box, path, b"x")


async def test_a_link_swapped_in_a_race_leads_nowhere(
    node: Node, caller: Caller, box: Sandbox
) -> None:
    secret = node.state / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o644)
    swap = f"""
import os
os.makedirs("good", exist_ok=True)
open("good/secret", "w").write("harmless")
os.symlink("good", "l1")
os.symlink("{node.state}", "l2")
os.symlink("/etc", "l3")
while True:
    for name in ("l1", "l2", "l3"):
        os.symlink(os.readlink(name), "t"); os.rename("t", "way")
"""
    (box.tree / "swap.py").write_text(swap)
    await caller.start(box, "race", "exec python3 swap.py")
    seen: set[bytes] = set()
    for number in range(2000):
        if number >= 150 and {b"harmless", b"INVALID_ARGUMENT"} <= seen:
            break
        try:
            if number % 2:
                seen.add(await read(caller, box, "way/secret"))
            else:
                await write(caller, box, "way/secret", b"harmless")
        except grpc.aio.AioRpcError as error:
            seen.add(error.code().name.encode())
    assert SECRET not in seen
    assert b"INTERNAL" not in seen
    assert secret.read_bytes() == SECRET
    assert b"harmless" in seen
    assert b"INVALID_ARGUMENT" in seen


async def test_permissions_and_names_are_told(caller: Caller, box: Sandbox) -> None:
    locked = box.tree / "locked"
    locked.mkdir(mode=0o755)
    os.chown(locked, OWNER, OWNER)
    await write(caller, box, "locked/file", b"x", mode=0o200)
    async with refused(Code.PERMISSION_DENIED, Why.ERROR_REASON_FILE_PERMISSION):
        await read(caller, box, "locked/file")
    locked.chmod(0o555)
    async with refused(Code.PERMISSION_DENIED, Why.ERROR_REASON_FILE_PERMISSION):
        await write(caller, box, "locked/other", b"x")
    locked.chmod(0o755)
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_PATH_TOO_LONG):
        await write(caller, box, "x" * 300, b"x")
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_INVALID_FIELD):
        await write(caller, box, "a\0b", b"x")
    async with refused(Code.INVALID_ARGUMENT, Why.ERROR_REASON_INVALID_FIELD):
        await read(caller, box, "a", raw_path=b"b")


async def test_a_dormant_environment_is_told(node: Node, caller: Caller, box: Sandbox) -> None:
    await node.end(box)
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_ENVIRONMENT_DORMANT):
        await read(caller, box, "a")
    async with refused(Code.FAILED_PRECONDITION, Why.ERROR_REASON_ENVIRONMENT_DORMANT):
        await write(caller, box, "a", b"x")
