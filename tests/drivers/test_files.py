"""Files of workspaces, on every driver: commands and calls see the same ones."""

from pathlib import Path

import pytest

from cove.status import Aborted, CoveError, NotFound
from tests.drivers.standing import Stage

BINARY = bytes(range(256)) * 300


async def test_what_is_written_by_a_call_is_read_by_a_command_and_back(stage: Stage) -> None:
    async with await stage.create() as workspace:
        await workspace.files.write("in/data.bin", BINARY, make_parents=True)
        await workspace.execute(script="cat in/data.bin in/data.bin > twice.bin", check=True)
        assert await workspace.files.read("twice.bin") == BINARY * 2
        assert await workspace.files.read("twice.bin", 255, 3) == b"\xff\x00\x01"


async def test_modes_links_and_names_stay_what_they_are(stage: Stage) -> None:
    async with await stage.create() as workspace:
        script = "echo run > 'a b.sh'; chmod 755 'a b.sh'; ln -s 'a b.sh' link; mkdir empty"
        await workspace.execute(script=script, check=True)
        found = {each.path: each for each in await workspace.list()}
        assert found["a b.sh"].mode & 0o777 == 0o755
        assert found["link"].link_target == "a b.sh"
        assert (
            await workspace.execute(script="test -x 'a b.sh' && readlink link")
        ).exit_status == 0


async def test_removed_and_moved_files_are_so_for_commands(stage: Stage) -> None:
    async with await stage.create() as workspace:
        await workspace.execute(script="mkdir d; echo 1 > d/one; echo 2 > two", check=True)
        await workspace.files.remove("d", recursive=True)
        await workspace.files.move("two", "moved")
        seen = await workspace.execute(script="ls; cat moved")
        assert seen.text.split() == ["moved", "2"]
        await workspace.execute("rm", "moved", check=True)
        with pytest.raises(NotFound):
            await workspace.files.read("moved")


async def test_no_path_leads_out(stage: Stage) -> None:
    async with await stage.create() as workspace:
        await workspace.execute(script="ln -s /etc/passwd out; ln -s / root", check=True)
        for path in ("out", "root/etc/passwd", "../etc/passwd", "/etc/passwd"):
            with pytest.raises(CoveError):
                await workspace.files.read(path)


async def test_an_etag_keeps_out_who_saw_something_else(stage: Stage) -> None:
    async with await stage.create() as workspace:
        written = await workspace.files.write("file", b"one")
        await workspace.execute(script="echo two > file", check=True)
        with pytest.raises(Aborted):
            await workspace.files.write("file", b"three", etag=written.etag)
        assert await workspace.files.read("file") == b"two\n"


async def test_a_directory_comes_in_and_goes_out_whole(stage: Stage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "data").write_bytes(BINARY)
    (source / "run").write_text("#!/bin/sh\necho ran\n")
    (source / "run").chmod(0o755)
    async with await stage.create() as workspace:
        await workspace.files.upload_directory(source, "tree")
        assert (await workspace.execute("tree/run")).text == "ran\n"
        await workspace.files.download_directory("tree", tmp_path / "back")
        assert (tmp_path / "back" / "deep" / "data").read_bytes() == BINARY


async def test_a_watch_tells_what_a_command_does(stage: Stage) -> None:
    async with await stage.create() as workspace:
        events = workspace.files.watch()
        await anext(events)  # It stands.
        await workspace.execute(script="echo x > seen", check=True)
        async for event in events:
            if getattr(event, "path", "") == "seen":
                break
        await events.aclose()
