"""Paths and files, between messages and what they are here."""

import stat
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from cove.executor.v1 import executor_pb2 as pb
from servicekit.errors import InvalidArgument
from services.executor.files.files import Found

_KINDS: Final = {
    stat.S_IFREG: pb.File.KIND_FILE,
    stat.S_IFDIR: pb.File.KIND_DIRECTORY,
    stat.S_IFLNK: pb.File.KIND_SYMLINK,
}
_SECOND_NS: Final = 10**9


def path_of(request: Any, *, root: bool = False) -> bytes:
    """The path of a request; with `root` an empty one is the workspace's root."""
    if root and not request.path and not request.raw_path:
        return b"."
    return one_of("path", request.path, request.raw_path)


def one_of(field: str, text: str, raw: bytes) -> bytes:
    if bool(text) == bool(raw):
        raise InvalidArgument(field, f"exactly one of {field} and its raw form must be set")
    path = raw or text.encode()
    if b"\0" in path:
        raise InvalidArgument(field, "a path cannot hold a NUL character")
    return path


def file_of(found: Found) -> pb.File:
    seconds, nanos = divmod(found.stat.st_mtime_ns, _SECOND_NS)
    kind = _KINDS.get(stat.S_IFMT(found.stat.st_mode), pb.File.KIND_OTHER)
    message = pb.File(
        kind=kind,
        size=found.stat.st_size if kind == pb.File.KIND_FILE else 0,
        mode=stat.S_IMODE(found.stat.st_mode),
        modify_time=Timestamp(seconds=seconds, nanos=nanos),
        etag=found.etag,
        link_target=text_of(found.target),
    )
    if text := text_of(found.path):
        message.path = text
    else:
        message.raw_path = found.path
    return message


def text_of(data: bytes) -> str:
    """Empty when it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return ""
