"""Archives beyond each limit: refused, with all that helps whoever sent it, and nothing stays."""

import bz2
import gzip
import lzma
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.inside import tar
from cove.executor.v1 import executor_pb2 as pb
from tests.executor.answers import Answer, failing
from tests.executor.node import Caller, Sandbox
from tests.executor.test_archives import archive, pack, unpack
from tests.servicekit.failing import answered

INVALID = "INVALID_ARGUMENT", "ARCHIVE_INVALID"
TOO_LARGE = "RESOURCE_EXHAUSTED", "ARCHIVE_TOO_LARGE"
_PIECE = 512
"""Entries in one message."""
BOMB = archive(("noise", os.urandom(600)), ("zeros", bytes(8 << 20)))


def says(name: str, size: int) -> bytes:
    """The beginning of an archive: a file is announced to be of that size."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def extended(records: dict[str, str]) -> bytes:
    """A file of no size, with extended headers."""
    info = tarfile.TarInfo("f")
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT) + tar.END


def old_sparse() -> bytes:
    """A sparse file as GNU tar wrote it: a gigabyte in a block."""
    info = tarfile.TarInfo("sparse")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 1 << 30
    return info.tobuf(tarfile.GNU_FORMAT) + tar.END


def deep(levels: int) -> bytes:
    return archive(("/".join("d" * levels), b""))


SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
BEYOND = {
    "a file": (says("big", tar.MOST_BYTES + 1), TOO_LARGE, "big", "too much in one archive"),
    "a sum": (
        archive(("first", b"x"))[:1024] + says("second", tar.MOST_BYTES),
        *(TOO_LARGE, "second", "too much in one archive"),
    ),
    "a size of pax": (
        extended({"size": str(tar.MOST_BYTES + 1)}),
        *(TOO_LARGE, "f", "too much in one archive"),
    ),
    "depth": (deep(129), TOO_LARGE, "d/d/d", "too many directories"),
    "a name": (archive(("n" * 256, b"")), TOO_LARGE, "nnn", "a path that is too long"),
    "a path": (
        archive(("/".join(["p" * 250] * 17), b"")),
        *(TOO_LARGE, "ppp", "a path that is too long"),
    ),
    "a header": (extended({"comment": "c" * (2 << 20)}), TOO_LARGE, "into", "a header"),
    "a sparse file": (extended(SPARSE), INVALID, "", "a sparse file"),
    "an old sparse file": (old_sparse(), INVALID, "sparse", "an entry of unknown kind"),
    "gzip": (gzip.compress(BOMB), INVALID, "", "it is compressed"),
    "bzip2": (bz2.compress(BOMB), INVALID, "", "it is compressed"),
    "xz": (lzma.compress(BOMB), INVALID, "", "it is compressed"),
}


def check(answer: Answer, told: tuple[str, str], path: str, why: str) -> None:
    assert (answer.code, answer.reason) == told
    assert answer.metadata["path"].startswith(path)
    assert why in answer.metadata["why"]
    assert answer.fields == (["data"] if told == INVALID else [])
    assert answer.remedy


@pytest.mark.parametrize("name", BEYOND)
async def test_an_archive_beyond_a_limit_leaves_nothing(
    caller: Caller, box: Sandbox, name: str
) -> None:
    data, told, path, why = BEYOND[name]
    (box.tree / "kept").write_text("kept")
    async with failing() as answer:
        await unpack(caller, box, "into", archive(("before", b"x"))[:1024] + data)
    check(answer, told, path, why)
    assert [each.name for each in box.tree.iterdir()] == ["kept"]


async def test_what_is_just_within_the_limits_is_unpacked(caller: Caller, box: Sandbox) -> None:
    data = archive(("/".join("d" * tar.MOST_DEPTH), b"deep"), ("n" * 255, b"long"))
    assert (await unpack(caller, box, "into", data)).entries == 2
    assert (box.tree / "into" / "/".join("d" * tar.MOST_DEPTH)).read_bytes() == b"deep"
    assert len((await pack(caller, box, "into"))[0]) > 0


async def test_what_is_too_deep_is_not_packed(caller: Caller, box: Sandbox) -> None:
    await caller.execute(box, f"mkdir -p top/{'d/' * tar.MOST_DEPTH}x")
    async with failing() as answer:
        await pack(caller, box, "top")
    check(answer, TOO_LARGE, "d/d/d", "too many directories")


async def test_a_sparse_file_is_packed_without_being_held(caller: Caller, box: Sandbox) -> None:
    """It is all zeros on the way; who leaves in the midst of it ends it."""
    await caller.execute(box, "truncate -s 40G huge")
    call = caller.files.ReadArchive(pb.ReadArchiveRequest(handle=box.handle))
    came = 0
    async for event in call:
        came += len(event.data)
        if came > 8 << 20:
            break
    call.cancel()
    assert (await caller.execute(box, "rm huge; echo fine")).stdout.text == "fine\n"


async def send_many(caller: Caller, box: Sandbox, block: bytes, count: int) -> pb.Unpacked:
    """An archive of an entry that comes `count` times."""
    many, rest = divmod(count, _PIECE)
    last = block * rest + tar.END

    async def requests() -> AsyncIterator[pb.WriteArchiveRequest]:
        header = pb.WriteArchiveHeader(handle=box.handle, path="into")
        yield pb.WriteArchiveRequest(header=header)
        for _ in range(many):
            yield pb.WriteArchiveRequest(data=block * _PIECE)
        yield pb.WriteArchiveRequest(data=last)
        size = (count * tar.BLOCK) + len(tar.END)
        yield pb.WriteArchiveRequest(end=pb.WriteFileEnd(bytes=size))

    return (await answered(caller.files.WriteArchive(requests(), timeout=300))).unpacked


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_one_more_than_a_million_entries_are_refused(caller: Caller, box: Sandbox) -> None:
    block = archive(("d", None))[: tar.BLOCK]
    async with failing() as answer:
        await send_many(caller, box, block, tar.MOST_ENTRIES + 1)
    check(answer, TOO_LARGE, "d", "too much in one archive")
    assert not list(box.tree.iterdir())


def test_limits_are_those_that_are_told() -> None:
    proto = (Path(__file__).parents[2] / "protos/cove/executor/v1/executor.proto").read_text()
    assert f"more than {tar.MOST_ENTRIES:,} entries, {tar.MOST_BYTES >> 30} GiB" in proto
    assert f"{tar.MOST_DEPTH} levels" in proto
