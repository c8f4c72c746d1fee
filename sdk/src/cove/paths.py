"""Paths in a workspace, which need not be UTF-8, in messages."""

import os
from pathlib import PurePath
from typing import TypedDict

from cove.executor.v1.executor_pb2 import File

AnyPath = str | bytes | PurePath
"""A path in a workspace: relative to its root, or absolute below it."""


class PathFields(TypedDict, total=False):
    """The fields of a request that name a path."""

    path: str
    raw_path: bytes


def path_fields(path: AnyPath) -> PathFields:
    """The path as `path`, or as `raw_path` when it is not UTF-8."""
    raw = os.fsencode(path)
    try:
        return {"path": raw.decode()}
    except UnicodeDecodeError:
        return {"raw_path": raw}


def raw_path(file: File) -> bytes:
    """The path of a file as bytes, whichever field has it."""
    return file.raw_path or file.path.encode()
