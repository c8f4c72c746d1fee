"""`workspace_write`, `workspace_edit`."""

import base64
import binascii
from typing import Final

from pydantic import BaseModel, Field

from cove import status
from cove.cli.console import quoted
from cove.files import Files
from cove.mcp.failures import wrong
from cove.mcp.fields import Encoding, FilePath, WorkspaceId
from cove.mcp.tool import Answer, Arguments, Call, Tool

_MOST_WRITTEN: Final = 1 << 20
_MOST_EDITED: Final = 4 << 20
_ATTEMPTS: Final = 5
_SHOWN_LINES: Final = 10


class Write(Arguments):
    """Write a whole file of a workspace, at once: readers see the old content or the new.
    Directories that are missing are made. For small changes of an existing file use
    workspace_edit."""

    workspace: WorkspaceId
    path: FilePath
    content: str = Field(max_length=_MOST_WRITTEN, description="All of it, at most 1 MiB.")
    encoding: Encoding = "text"
    etag: str = Field(
        default="",
        max_length=256,
        description="Only if the file is still the one with this etag, from workspace_read.",
    )
    must_not_exist: bool = Field(default=False, description="Only if nothing is there.")


class Edit(Arguments):
    """Replace a text in a file of a workspace by another. The old text must be there exactly as
    it is given, line ends and indentation included, and only once, unless replace_all. Nothing
    that another writes into the file meanwhile is lost."""

    workspace: WorkspaceId
    path: FilePath
    old_text: str = Field(
        min_length=1, max_length=_MOST_WRITTEN, description="What is there, with enough around it."
    )
    new_text: str = Field(max_length=_MOST_WRITTEN, description="What shall be there.")
    replace_all: bool = Field(default=False, description="Replace it wherever it is.")
    etag: str = Field(
        default="",
        max_length=256,
        description="Only if the file is still the one with this etag, from workspace_read.",
    )


class Written(BaseModel):
    """A file as it is now."""

    path: str
    size: int
    etag: str


class Edited(Written):
    """A file as it is now, and what was replaced."""

    replaced: int = Field(description="How often the old text was replaced.")
    lines: list[int] = Field(
        description=f"Where, as lines of the file before; at most {_SHOWN_LINES}."
    )


async def write(call: Call, asked: Write) -> Answer:
    content = asked.content.encode()
    if asked.encoding == "base64":
        try:
            content = base64.b64decode(content, validate=True)
        except binascii.Error as error:
            raise wrong("content", f"not base64: {error}") from None
    file = await call.cove.workspaces.named(asked.workspace).files.write(
        asked.path,
        content,
        etag=asked.etag,
        must_not_exist=asked.must_not_exist,
        make_parents=True,
    )
    data = Written(path=asked.path, size=file.size, etag=file.etag)
    return Answer(f"wrote {file.size} bytes to {quoted(asked.path)}, etag {file.etag}", data)


async def edit(call: Call, asked: Edit) -> Answer:
    """Without an etag of the caller's, one that lost against another writer is made again."""
    files = call.cove.workspaces.named(asked.workspace).files
    if asked.old_text == asked.new_text:
        raise wrong("new_text", "is the same as old_text")
    for _ in range(0 if asked.etag else _ATTEMPTS - 1):
        try:
            return await _edited(files, asked)
        except status.Aborted:
            continue
    return await _edited(files, asked)


async def _edited(files: Files, asked: Edit) -> Answer:
    old, new = asked.old_text.encode(), asked.new_text.encode()
    content = await files.fetch(asked.path, limit=_MOST_EDITED + 1)
    times = content.data.count(old)
    size = len(content.data) + times * (len(new) - len(old))
    if max(len(content.data), size) > _MOST_EDITED:
        raise status.FailedPrecondition(
            f"{quoted(asked.path)} is or would be too large to be edited",
            reason="FILE_TOO_LARGE",
            metadata={"size": str(content.file.size)},
            remedy=f"Files up to {_MOST_EDITED} bytes are; change it with a command, say sed.",
        )
    if asked.etag and asked.etag != content.file.etag:
        raise status.Aborted(
            f"{quoted(asked.path)} is not the one with that etag",
            reason="ERROR_REASON_FILE_CHANGED",
        )
    lines = _lines(content.data, old)
    _check(asked, content.data, lines)
    file = await files.write(asked.path, content.data.replace(old, new), etag=content.file.etag)
    data = Edited(path=asked.path, size=file.size, etag=file.etag, replaced=times, lines=lines)
    often = "once" if times == 1 else f"{times} times"
    return Answer(
        f"replaced it {often} in {quoted(asked.path)} ({_in_lines(lines)}), etag {file.etag}", data
    )


def _lines(data: bytes, text: bytes) -> list[int]:
    """The lines at which it begins, the first few."""
    found, at, line = list[int](), 0, 1
    while len(found) < _SHOWN_LINES and (place := data.find(text, at)) >= 0:
        line += data.count(b"\n", at, place)
        found.append(line)
        at = place + len(text)
        line += text.count(b"\n")
    return found


def _check(asked: Edit, data: bytes, lines: list[int]) -> None:
    if not lines:
        ends = b"\r\n" in data and "\n" in asked.old_text and "\r\n" not in asked.old_text
        raise status.FailedPrecondition(
            f"old_text is not in {quoted(asked.path)}",
            reason="TEXT_NOT_FOUND",
            remedy=r"The lines of this file end in \r\n: give old_text and new_text so."
            if ends
            else "workspace_read the file and give old_text exactly as it is there, blanks "
            "included.",
        )
    old = asked.old_text.encode()
    if data.find(old) != data.rfind(old) and not asked.replace_all:
        raise status.FailedPrecondition(
            f"old_text is in {quoted(asked.path)} more than once ({_in_lines(lines)})",
            reason="TEXT_NOT_UNIQUE",
            remedy="Give more of what is around it, or set replace_all.",
        )


def _in_lines(lines: list[int]) -> str:
    more = ", …" if len(lines) == _SHOWN_LINES else ""
    return f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}{more}"


TOOLS: Final = (
    Tool(
        name="workspace_write",
        title="Write a file",
        arguments=Write,
        run=write,
        answer=Written,
        destroys=True,
        repeats=True,
    ),
    Tool(
        name="workspace_edit",
        title="Edit a file",
        arguments=Edit,
        run=edit,
        answer=Edited,
        destroys=True,
    ),
)
