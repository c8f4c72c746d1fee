"""Parts of the executor that a client cannot reach from outside."""

import asyncio
import errno
import os
import stat
import tracemalloc
from pathlib import Path

import pytest

from agent.record import ExitKind, Result
from servicekit.disk import DiskFull, DiskGuard, full, used
from services.executor.background import Background
from services.executor.bounded import Bounded
from services.executor.ending import End, Reason, Usage
from services.executor.errors import AgentUnavailable
from services.executor.files.files import entries
from services.executor.files.places import Places
from services.executor.output import Marks
from services.executor.record import Spec, State
from services.executor.store import Store
from services.executor.watch import Watcher
from tests.executor.node import recorded

UID = "a" * 16
SPEC = Spec(argv=("true",), timeout_ns=10**9)


def test_descriptors_of_other_things_are_not_used(tmp_path: Path) -> None:
    places = Places(tmp_path)
    file = tmp_path / "file"
    file.write_bytes(b"x")
    cases = [
        (file, os.O_RDWR, stat.S_IFREG, os.O_RDONLY),
        (file, os.O_RDONLY, stat.S_IFREG, os.O_WRONLY),
        (file, os.O_PATH, stat.S_IFREG, os.O_RDONLY),
        (file, os.O_RDONLY, stat.S_IFREG, os.O_PATH),
        (file, os.O_RDONLY, stat.S_IFDIR, os.O_RDONLY),
        (tmp_path, os.O_RDONLY, stat.S_IFREG, os.O_RDONLY),
        (Path("/proc/self/environ"), os.O_RDONLY, stat.S_IFREG, os.O_RDONLY),
        (Path("/dev/null"), os.O_RDONLY, 0, os.O_RDONLY),
    ]
    for path, flags, kind, access in cases:
        descriptor = os.open(path, flags)
        try:
            with pytest.raises(AgentUnavailable):
                places.check(UID, descriptor, kind, access)
        finally:
            os.close(descriptor)
    descriptor = os.open(file, os.O_RDONLY)
    assert places.check(UID, descriptor, stat.S_IFREG, os.O_RDONLY).st_size == 1
    os.close(descriptor)


def test_a_store_takes_only_names_that_are_names(tmp_path: Path) -> None:
    store = Store(tmp_path / "executions")
    for uid, execution_id in [("../" + UID, "a"), (UID, ".."), (UID, "a/b"), (UID, "A"), ("", "")]:
        with pytest.raises(ValueError, match="not the"):
            store.folder(uid, execution_id)


async def test_an_id_is_made_once_and_held_until_started(tmp_path: Path) -> None:
    store = Store(tmp_path / "executions")
    with recorded(store, UID, "one", SPEC, 1) as record:
        with pytest.raises(FileExistsError), recorded(store, UID, "one", SPEC, 2):
            pass
        assert store.read(UID, "one") == record
        assert store.progress(record).state is State.STARTING

        async def hold() -> bool:
            async with store.held(record) as there:
                return there

        waiting = asyncio.ensure_future(hold())
        await asyncio.wait((waiting,), timeout=0.05)
        assert not waiting.done()
    assert await waiting
    assert [each.name for each in record.folder.parent.iterdir()] == ["one"]
    async with store.held(record):
        store.remove(record)
    assert not await hold()
    assert store.progress(record).state is State.REMOVED


def test_an_end_survives_its_file_and_a_power_cut(tmp_path: Path) -> None:
    end = End(reason=Reason.LOST, text="é\x00", start_ns=1, output_bytes=7)
    assert End.decode(end.encode()) == end
    longest = End(reason=Reason.CANCELLED, text="\x00" * 1024, end_ns=2**63 - 1)
    assert len(longest.encode()) == len(end.encode())
    cut = end.encode().rstrip(b"\0")[:-5]
    for damaged in (b"", b"\0" * 100, cut, b"[]", b'{"version": 9}'):
        assert End.decode(damaged) is None


@pytest.mark.parametrize(
    ("kind", "number", "kills", "reason"),
    [
        (ExitKind.CODE, 137, 0, Reason.CODE),
        (ExitKind.CODE, 137, 1, Reason.MEMORY),
        (ExitKind.CODE, 1, 1, Reason.CODE),
        (ExitKind.SIGNAL, 9, 1, Reason.MEMORY),
        (ExitKind.SIGNAL, 9, 0, Reason.SIGNAL),
        (ExitKind.SIGNAL, 11, 1, Reason.SIGNAL),
        (ExitKind.TIMED_OUT, 9, 1, Reason.TIMED_OUT),
        (ExitKind.CANCELLED, 9, 1, Reason.CANCELLED),
    ],
)
def test_memory_is_named_only_where_it_ended_the_command(
    kind: ExitKind, number: int, kills: int, reason: Reason
) -> None:
    end = End.of(Result(kind=kind, number=number), Usage(oom_kills=kills))
    assert end.reason is reason


def test_marks_stay_few_and_near() -> None:
    marks = Marks()
    for megabyte in range(5000):
        marks.note("log", megabyte << 20, (megabyte << 20) - megabyte)
    position, offset = marks.before("log", 4_000 << 20)
    assert offset == position - (position >> 20)
    assert (4_000 << 20) - offset < 64 << 20
    assert marks.before("other", 1 << 30) == (0, 0)
    for number in range(2000):
        marks.note(f"log{number}", 0, 0)
    assert marks.before("log", 4_000 << 20) == (0, 0)


@pytest.mark.parametrize("inotify", [True, False])
async def test_changes_are_told_with_and_without_inotify(tmp_path: Path, inotify: bool) -> None:
    with Watcher.open(inotify=inotify) as watcher:
        async with watcher.watching(tmp_path, "wanted") as changes:
            waiting = asyncio.ensure_future(changes.wait(60))
            await asyncio.sleep(0)
            (tmp_path / "wanted").write_text("x")
            async with asyncio.timeout(30):
                await waiting
            changes.happened.clear()
            (tmp_path / "other").write_text("x")
            await changes.wait(0.05)
            assert not changes.happened.is_set()
            if inotify:
                tmp_path.rename(tmp_path.with_name("moved"))
                async with asyncio.timeout(30):
                    await changes.happened.wait()
                tmp_path.with_name("moved").rename(tmp_path)


def test_a_bounded_output_cuts_characters_only_in_texts() -> None:
    output = Bounded(5)
    output.add("€€".encode())
    assert output.message().text == "€"
    assert output.message().truncated
    output = Bounded(6)
    output.add("€€".encode())
    assert (output.message().text, output.message().truncated) == ("€€", False)
    output = Bounded(3)
    output.add(b"a\xff\xff\xff")
    assert output.message().data == b"a\xff\xff"


def test_the_disk_guard_refuses_from_its_limit_on(tmp_path: Path) -> None:
    DiskGuard(tmp_path, 0.9, lambda _: 0.89).check()
    with pytest.raises(DiskFull) as caught:
        DiskGuard(tmp_path, 0.9, lambda _: 0.9).check()
    assert caught.value.metadata == {"used": "90%", "limit": "90%"}
    assert 0 < used(tmp_path) <= 1
    assert isinstance(full(errno.ENOSPC), DiskFull)
    assert full(errno.EIO) is None


def test_a_listing_remembers_no_more_than_it_returns(tmp_path: Path) -> None:
    for number in range(5000):
        (tmp_path / f"{number:0200}").touch()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    tracemalloc.start()
    try:
        found = entries(descriptor, b"d", b"%0200d" % 4, 10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        os.close(descriptor)
    assert [each.path for each in found] == [b"d/%0200d" % number for number in range(5, 15)]
    assert peak < 100_000


async def test_what_ends_may_begin_something_more() -> None:
    ended = []

    async def clean(name: str) -> None:
        await asyncio.sleep(0)
        ended.append(name)

    async def last(background: Background) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            background.keep(asyncio.Event().wait())  # type: ignore[arg-type]
            background.begin(clean("one"))
            ended.append("two")

    async with Background.open() as background:
        background.keep(last(background))
        await asyncio.sleep(0)
    assert sorted(ended) == ["one", "two"]
    assert len(asyncio.all_tasks()) == 1
