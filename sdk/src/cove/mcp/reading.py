"""`workspace_list_files`, `workspace_read`."""

import base64
from typing import Final, Literal

from pydantic import BaseModel, Field

from cove import status
from cove.cli.console import quoted
from cove.executor.v1.executor_pb2 import File
from cove.files import Content
from cove.mcp.failures import wrong
from cove.mcp.fields import (
    LARGEST,
    LONGEST_PATH,
    Encoding,
    FilePath,
    Limit,
    MaxBytes,
    Offset,
    WorkspaceId,
    listed,
    page,
)
from cove.mcp.lines import Lines, whole
from cove.mcp.tool import Answer, Arguments, Call, Tool


class ListFiles(Arguments):
    """List a directory of a workspace in the order of the names: kind, size, path."""

    workspace: WorkspaceId
    path: str = Field(
        default=".",
        min_length=1,
        max_length=LONGEST_PATH,
        description="Path relative to the root of the workspace.",
    )
    limit: Limit = 200
    offset: Offset = 0


class Read(Arguments):
    """Read a file of a workspace. Text comes in whole lines, exactly as they are, from a line
    on, or from a byte offset on; the answer says where to read on. Binary files can be read with
    encoding base64. The answer has the file's etag, by which workspace_edit and workspace_write
    refuse to change what somebody else has changed since."""

    workspace: WorkspaceId
    path: FilePath
    line: int = Field(
        default=1, ge=1, le=LARGEST, description="First line to return, counted from 1."
    )
    max_lines: int = Field(default=2000, ge=1, le=10_000, description="At most so many lines.")
    offset: int = Field(
        default=0,
        ge=0,
        le=LARGEST,
        description="First byte to return, instead of a line: for very long lines and base64.",
    )
    max_bytes: MaxBytes = 30_000
    encoding: Encoding = "text"


class FileEntry(BaseModel):
    """Something in a directory."""

    path: str = Field(description="In quotes, with escapes, where it has unusual characters.")
    kind: Literal["file", "directory", "symlink", "other"]
    size: int
    executable: bool
    link_target: str


class FileEntries(BaseModel):
    """A page of a directory."""

    files: list[FileEntry]
    next_offset: int | None = Field(description="Where the next page begins; None: no more.")


async def list_files(call: Call, asked: ListFiles) -> Answer:
    files = call.cove.workspaces.named(asked.workspace).files.list(asked.path)
    found, more = await page(files, asked.offset, asked.limit)
    data = FileEntries(files=[_entry(file) for file in found], next_offset=more)
    rows = []
    for each in data.files:
        size = f" {each.size} bytes" if each.kind == "file" else ""
        target = f" -> {each.link_target}" if each.link_target else ""
        rows.append(f"{each.kind}{' (executable)' * each.executable}{size}: {each.path}{target}")
    return Answer(listed(rows, "files", more), data)


def _entry(file: File) -> FileEntry:
    kinds: dict[int, Literal["file", "directory", "symlink"]] = {
        File.KIND_FILE: "file",
        File.KIND_DIRECTORY: "directory",
        File.KIND_SYMLINK: "symlink",
    }
    return FileEntry(
        path=quoted(file.path, file.raw_path),
        kind=kinds.get(file.kind, "other"),
        size=file.size,
        executable=file.kind == File.KIND_FILE and bool(file.mode & 0o111),
        link_target=quoted(file.link_target),
    )


async def read(call: Call, asked: Read) -> Answer:
    files = call.cove.workspaces.named(asked.workspace).files
    if asked.line > 1 and (asked.offset or asked.encoding == "base64"):
        raise wrong("line", "goes with encoding text, and without offset")
    if asked.encoding == "base64" or asked.offset:
        return _bytes(asked, await files.fetch(asked.path, asked.offset, asked.max_bytes))
    lines = await Lines.read(
        files, asked.path, asked.line, max_lines=asked.max_lines, max_bytes=asked.max_bytes
    )
    _refuse_binary(asked, lines.data)
    says = f"{quoted(asked.path)}: {lines.says}, etag {lines.file.etag}{_lossy(lines.data)}"
    return Answer(says, contents=[lines.data.decode(errors="replace")] if lines.data else [])


def _bytes(asked: Read, content: Content) -> Answer:
    """A part of a file that was asked for by its offset."""
    data, size = content.data[: asked.max_bytes], content.file.size
    if asked.encoding == "text":
        _refuse_binary(asked, data)
        if asked.offset + len(data) < size:
            data = whole(data)
        text, lossy = data.decode(errors="replace"), _lossy(data)
    else:
        text, lossy = base64.b64encode(data).decode(), ", base64"
    end = asked.offset + len(data)
    rest = f"; read on with offset {end}" if end < size else ", the end"
    says = f"{quoted(asked.path)}: bytes {asked.offset} to {end} of {size}{rest}"
    return Answer(f"{says}, etag {content.file.etag}{lossy}", contents=[text] if text else [])


def _refuse_binary(asked: Read, data: bytes) -> None:
    if b"\0" in data:
        raise status.FailedPrecondition(
            f"{quoted(asked.path)} is a binary file",
            reason="FILE_NOT_TEXT",
            remedy='Read it with encoding "base64", or look at it with a command.',
        )


def _lossy(data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError:
        return "; not UTF-8: what is not is shown as \N{REPLACEMENT CHARACTER}"
    return ""


TOOLS: Final = (
    Tool(
        name="workspace_list_files",
        title="List a directory",
        arguments=ListFiles,
        run=list_files,
        answer=FileEntries,
        reads=True,
    ),
    Tool(name="workspace_read", title="Read a file", arguments=Read, run=read, reads=True),
)
