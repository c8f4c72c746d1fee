"""Runs what is hostile as a user who owns nothing but one folder, and looks at what it did.

`python -m tests.agent.fuzz.arena FOLDER EXAMPLES [random]`
"""

import io
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.inside import files, paths, placing, tar, unpacking
from agent.removal import remove_tree
from cove import archive
from tests.agent.fuzz import hostile

NOBODY = 60900
Snapshot = dict[str, tuple[int, int, bytes]]


class Arena:
    """`outside` is what nobody may touch; `box` is where hostile things are put."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.outside = base / "outside"
        self.box = base / "box"
        self.into = self.box / "into"

    def prepare(self, *, links: bool) -> None:
        for folder in (self.outside, self.box):
            if folder.exists():
                above = os.open(self.base, os.O_RDONLY)
                remove_tree(os.fsencode(folder.name), above, unlock=True)
                os.close(above)
        (self.outside / "a" / "b").mkdir(parents=True)
        (self.outside / "a" / "c").write_bytes(b"kept")
        self.into.mkdir(parents=True)
        if links:
            (self.into / "out").symlink_to("../../outside")
            (self.into / "a").mkdir()
            (self.into / "a" / "b").symlink_to("../out/a")
            (self.into / "in").symlink_to("a")

    def snapshot(self) -> Snapshot:
        """Of all that is outside."""
        return {
            str(path): (
                path.lstat().st_mode,
                path.lstat().st_nlink,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in (self.outside, *self.outside.rglob("*"))
        }

    def check(self, before: Snapshot, *, links: bool, most: int) -> None:
        assert self.snapshot() == before
        assert {each.name for each in self.base.iterdir()} == {"outside", "box"}
        assert {each.name for each in self.box.iterdir()} <= {"into"}
        self.look(self.into, most, links=links)

    def look(self, top: Path, most: int, *, links: bool) -> None:
        """What was unpacked; `links`: among links that lead out."""
        seen: dict[int, int] = {}
        for folder, folders, names in os.walk(os.fsencode(top)):
            for name in (*folders, *names):
                found = os.lstat(folder + b"/" + name)
                assert stat.S_IFMT(found.st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
                if not stat.S_ISLNK(found.st_mode):
                    assert not stat.S_IMODE(found.st_mode) & ~0o755, oct(found.st_mode)
                elif not links:
                    real = os.path.realpath(folder + b"/" + name)
                    assert (real + b"/").startswith(os.fsencode(top) + b"/"), real
                if stat.S_ISREG(found.st_mode):
                    seen[found.st_ino] = found.st_size
        assert sum(seen.values()) <= most


def unpack_inside(arena: Arena, data: bytes) -> bool:
    """As a helper of the agent does; whether it was unpacked."""
    source, feed = os.pipe()
    done = False
    feeder = threading.Thread(target=_feed, args=(feed, data))
    feeder.start()
    box = os.open(arena.box, os.O_RDONLY)
    os.mkdir(b".stage", 0o700, dir_fd=box)
    try:
        stage = os.open(b".stage", os.O_RDONLY | os.O_DIRECTORY, dir_fd=box)
        try:
            unpacking.Unpacker(source, stage).run()
        finally:
            os.close(stage)
            arena.look(arena.box / ".stage", len(data), links=False)
        places = (paths.Place(os.dup(box), name) for name in (b".stage", b"into"))
        with next(places) as here, next(places) as target:
            placing.Placer(here, target).run()
        done = True
    except (tar.TarError, placing.ConflictError, OSError):
        remove_tree(b".stage", box, unlock=True)
    finally:
        os.close(source)
        os.close(box)
        feeder.join()
    return done


def _feed(descriptor: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except BrokenPipeError:
        pass
    finally:
        os.close(descriptor)


def unpack_outside(arena: Arena, data: bytes) -> bool:
    """As the client does; whether it was unpacked."""
    try:
        archive.unpack(io.BytesIO(data), arena.into, None)
    except (archive.UnsafeArchive, OSError):
        return False
    return True


def use_paths(arena: Arena, steps: list[tuple[int, bytes, bytes]]) -> None:
    """What the agent does with paths on request."""
    paths.ROOTS = (os.fsencode(arena.into),)  # type: ignore[assignment]
    for what, path, other in steps:
        try:
            _STEPS[what % len(_STEPS)](path, other)
        except (OSError, paths.OutsideError):
            continue


def _read(path: bytes, _: bytes) -> None:
    os.close(files.open_file(path, os.O_RDONLY, 0, follow=True))


def _write(path: bytes, _: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.close(files.open_file(path, flags, 0o644, follow=True))


def _make(path: bytes, _: bytes) -> None:
    files.make_directory(path, 0o755, parents=True)


def _remove(path: bytes, other: bytes) -> None:
    if not files.remove(path) and len(other) % 2:
        files.remove_tree(path)


def _rename(path: bytes, other: bytes) -> None:
    files.rename(path, other, replace=True)


def _link(path: bytes, target: bytes) -> None:
    """A command makes a link, anywhere inside."""
    with paths.locate(path, follow=False) as place:
        if b"\0" in target:
            return
        os.symlink(target, place.name, dir_fd=place.directory)


_STEPS: Final = (_read, _write, _make, _remove, _rename, _link)


def main() -> None:
    base, examples, *rest = sys.argv[1:]
    if os.geteuid() == 0:
        os.chown(base, NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    os.chdir(base)
    chosen = settings(
        max_examples=int(examples),
        deadline=None,
        database=None,
        derandomize=not rest,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    arena = Arena(Path(base).resolve())
    unpackers = {"agent": unpack_inside, "client": unpack_outside}
    counts = dict.fromkeys((*unpackers, "unpacked", "paths"), 0)

    @chosen
    @given(hostile.archives(), st.booleans(), st.sampled_from(sorted(unpackers)))
    def archives(data: bytes, links: bool, which: str) -> None:
        arena.prepare(links=links)
        before = arena.snapshot()
        counts["unpacked"] += unpackers[which](arena, data)
        arena.check(before, links=links, most=len(data))
        counts[which] += 1

    step = st.tuples(st.integers(0, 20), hostile.paths, hostile.paths)

    @chosen
    @given(st.lists(step, max_size=12), st.booleans())
    def on_paths(steps: list[tuple[int, bytes, bytes]], links: bool) -> None:
        arena.prepare(links=links)
        before = arena.snapshot()
        use_paths(arena, steps)
        assert arena.snapshot() == before
        counts["paths"] += 1

    archives()
    on_paths()
    print(counts)  # noqa: T201


if __name__ == "__main__":
    main()
