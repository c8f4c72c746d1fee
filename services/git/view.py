"""What a program in the sandbox sees as `.git`: read-only, so that status, log and diff work.

It is a directory of its own, made anew from what the service knows. Nothing in
it is ever read back.
"""

from pathlib import Path
from typing import Final

from services.git import files
from services.git.workspace import Workspace

OBJECTS: Final = "/.cove/objects"
_CONFIG: Final = b"[core]\nrepositoryformatversion = 0\nbare = false\nlogAllRefUpdates = false\n"


async def refresh(workspace: Workspace, branch: str, url: str, *, with_refs: bool = True) -> None:
    """Bring the view up to the head. It is bound already: the directory stays the same."""
    head = workspace.head
    owner = workspace.cells.sandbox
    view = workspace.view
    parts = ["", "objects", "objects/info", "objects/pack", "info", "refs", "refs/heads", "hooks"]
    names = branch.split("/")[:-1]
    parts += ["refs/heads/" + "/".join(names[: count + 1]) for count in range(len(names))]
    for name in parts:
        files.make_directory(view / name, owner)
    origin = f'[remote "origin"]\n\turl = "{_quoted(url)}"\n' if url else ""
    contents = {
        "config": _CONFIG + origin.encode(),
        "objects/info/alternates": f"{OBJECTS}\n".encode(),
        "HEAD": f"ref: refs/heads/{branch}\n".encode(),
    }
    if with_refs:
        contents["packed-refs"] = await _packed_refs(workspace)
    for name, data in contents.items():
        files.write(view / name, data, owner=owner, durable=False)
    index = workspace.index_path(head)
    files.copy_from_cell(index.parent, index.name, view / "index", owner)
    if head:
        files.write(_ref(workspace, branch), f"{head}\n".encode(), owner=owner, durable=False)


def is_current(workspace: Workspace, branch: str) -> bool:
    """Whether the view shows the head: a crash may have come between the two."""
    try:
        return _ref(workspace, branch).read_text("ascii").strip() == workspace.head
    except FileNotFoundError:
        return not workspace.head


async def _packed_refs(workspace: Workspace) -> bytes:
    refs = await workspace.repository.refs("refs/remotes/", "refs/tags/")
    lines = sorted((name.encode("utf-8", "surrogateescape"), value) for name, value in refs.items())
    packed = b"".join(value.encode() + b" " + name + b"\n" for name, value in lines)
    return b"# pack-refs with: sorted \n" + packed


def _ref(workspace: Workspace, branch: str) -> Path:
    return workspace.view / "refs" / "heads" / branch


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
