"""What a helper does, and how it tells of it. It runs in a process of its own."""

import os
from _collections_abc import Sequence

from agent import frames
from agent.inside import tar
from agent.inside.packing import ChangedError, Packer
from agent.inside.paths import OutsideError, locate
from agent.inside.placing import ConflictError, Placer
from agent.inside.unpacking import Unpacker
from agent.inside.watching import TooManyError, Watch
from agent.removal import remove_tree

_ENOTDIR = 20
_COMMIT = b"commit"
_STAGE_MODE = 0o700
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def run(kind: int, fields: list[bytes], fds: Sequence[int]) -> None:
    """Do it, and say on the last descriptor how it went."""
    control = fds[-1]
    placed = [0]
    try:
        if kind == frames.READ_ARCHIVE:
            packer = Packer(fds[0])
            packer.run(fields[0])
            done = packer.entries, packer.skipped
        elif kind == frames.WRITE_ARCHIVE:
            done = _write(fields[0], fields[1], fds, placed)
        else:
            Watch(control).run(fields[0])
            done = 0, 0
        told = frames.pack(frames.DONE, *done)
    except BrokenPipeError:
        return  # Nobody is there to be told.
    except BaseException as error:
        told = _failure(error, placed[0])
    os.write(control, told)


def _write(path: bytes, stage: bytes, fds: Sequence[int], placed: list[int]) -> tuple[int, int]:
    """Unpack, wait for the word, place. Nothing is left of it where it fails before that."""
    source, control = fds
    with locate(stage, follow=False) as place:
        os.mkdir(place.name, _STAGE_MODE, dir_fd=place.directory)
        try:
            descriptor = os.open(place.name, _FOLDER, dir_fd=place.directory)
            unpacker = Unpacker(source, descriptor)
            unpacker.run()
            os.close(descriptor)
            done = unpacker.entries, unpacker.bytes
            os.write(control, frames.pack(frames.STAGED, *done))
            if os.read(control, frames.MAX_PACKET) != _COMMIT:
                raise BrokenPipeError
            with locate(path, follow=True) as target:
                placer = Placer(place, target)
                try:
                    placer.run()
                finally:
                    placed[0] = placer.placed
        except BaseException:
            _discard(place.name, place.directory)
            raise
    return done


def _discard(name: bytes, directory: int) -> None:
    try:
        remove_tree(name, directory, unlock=True)
    except OSError:
        return  # Somebody was here; the executor removes by its name what is left.


def _failure(error: BaseException, placed: int) -> bytes:
    code, number, name = frames.OS_ERROR, 0, getattr(error, "name", b"")
    if isinstance(error, OutsideError):
        code, name = frames.PATH_OUTSIDE, b""
    elif isinstance(error, tar.TooMuchError):
        code = frames.ARCHIVE_TOO_LARGE
    elif isinstance(error, tar.TarError):
        code = frames.ARCHIVE_INVALID
    elif isinstance(error, ChangedError):
        code = frames.FILE_CHANGED
    elif isinstance(error, TooManyError):
        code = frames.WATCH_LIMIT
    elif isinstance(error, ConflictError):
        number = _ENOTDIR
    elif isinstance(error, OSError):
        number = error.errno or 0
        name = error.filename if isinstance(error.filename, bytes) else b""
    why = str(error) if not isinstance(error, OSError) else error.strerror or ""
    return frames.pack(frames.FAILED, code, number, why[:200].encode(), name[:4096], placed)
