"""Fills one checkout with the files of a commit: whole, or as a layer over another checkout.

Git does it in a cell that writes this checkout alone. The contents are the
blobs, byte by byte: no line ends, no filter, no `$Id$`, no other encoding.

The index says of each file what a `stat` of it says, also through an overlay:
inode number, times, size and owner. Files are as old as their commit, and so
older than the index: a file that is changed later never looks unchanged.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent import drafts
from services.git import files, layers
from services.git.cell import Bind, Cell, Cells, Identity
from services.git.command import Command, Where, git, together
from services.git.errors import OutputTooLarge, PathForbidden, RevisionNotFound, failed
from services.git.layers import Difference
from services.git.process import Result
from services.git.repository import Repository
from services.git.transport import STORE

OBJECTS: Final = "/.cove/objects"
"""Where a sandbox sees the objects of its repository."""

_TREE: Final = "/run/cell/tree"
_STORE: Final = "/run/cell/store"
_GIT: Final = "/run/cell/git"
_CONFIG: Final = (
    b"[core]\n\trepositoryformatversion = 0\n\tbare = false\n[checkout]\n\tworkers = 2\n"
)
_RAW: Final = b"* -text -eol -ident -filter !working-tree-encoding\n"

_TEMPLATE_FOLDERS: Final = (
    *("", "info", "objects", "objects/info", "objects/pack"),
    *("refs", "refs/heads", "refs/tags"),
)
_LAST: Final = "objects/info/alternates"
_TEMPLATE_CONFIG: Final = (
    b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n"
    b"\tlogallrefupdates = true\n[gc]\n\tauto = 0\n"
)

_TIMEOUT: Final = 600
_OUTPUT_LIMIT: Final = 1 << 20
_DIFFERENCE_LIMIT: Final = 4 << 20
_MARGIN: Final = 2
"""Seconds that files are older than their index, whatever the commit says."""
# Of a write that failed git does not say why; mostly it is this.
_TOO_LONG: Final = re.compile(r"(?:create \w+|open file) '?(.*?)'?: File name too long")
_INVALID_PATH: Final = re.compile(r"invalid path '(.*)'")


@dataclass(frozen=True, slots=True)
class Over:
    """The tree of the checkout to be a layer over, and how the commit differs from it."""

    tree: Path
    difference: Difference


@dataclass(frozen=True, slots=True)
class Filled:
    """What a checkout takes: `bytes` of disk of its own, and `files` that its commit has."""

    bytes: int
    files: int


async def date(cells: Cells, repository: Repository, commit: str) -> int:
    """When `commit` was made, in seconds since the epoch. Raises `RevisionNotFound`."""
    command = git(_where(), "rev-list", ["--no-walk", "--timestamp"], values=[commit])
    result = await cells.run(_cell(repository), command)
    moment, _, found = result.output.decode("ascii", "replace").strip().partition(" ")
    if result.code != 0 or found != commit or not moment.isdigit():
        raise RevisionNotFound("the repository has no such commit", revision=commit)
    return int(moment)


async def difference(
    cells: Cells, repository: Repository, lower: str, commit: str
) -> Difference | None:
    """How `commit` differs from `lower`; None when that is much, or `lower` is gone."""
    command = git(_where(), "diff-tree", values=[lower, commit])
    try:
        result = await cells.run(_cell(repository), command, limit=_DIFFERENCE_LIMIT)
    except OutputTooLarge:
        return None
    return layers.read(result.output) if result.code == 0 else None


async def fill(
    cells: Cells,
    repository: Repository,
    commit: str,
    tree: Path,
    moment: int,
    over: Over | None = None,
) -> Filled:
    """Fill `tree`, a new directory, with the files of `commit`, which was made at `moment`.

    Raises `PathForbidden`, `DiskFull`, and `PermissionError` where `over` another
    one is not possible, as the service may not make whiteouts.
    """
    lay_out(tree, repository.sandbox)
    where = _where(index=True)
    if over is None:
        stdin, tolerance = b"", list[str]()
        take = (
            git(where, "read-tree", values=[commit]),
            git(where, "checkout-index", ["-a", "-f"]),
        )
    else:
        _lay_over(tree, over, repository.sandbox)
        stdin = b"".join(path + b"\0" for path in over.difference.written)
        tolerance = ["--ignore-missing"]
        take = (
            # What did not change keeps what the index says of it.
            git(where, "read-tree", ["-m", "-i"], values=[commit]),
            git(where, "checkout-index", ["-f", "-z", "--stdin"]),
        )
    refresh = git(where, "update-index", [*tolerance, "--refresh"])
    return await _run(
        cells,
        _cell(repository, tree),
        [*take, _aged(moment, refresh), refresh, *_counted(refresh)],
        stdin,
    )


def _aged(moment: int, like: Command) -> Command:
    """Give all files the time of their commit, or of just before now if that is earlier."""
    age = max(1, min(moment, int(time.time()) - _MARGIN))
    kinds = ("(", "-type", "f", "-o", "-type", "l", ")")
    touch = ("-exec", "touch", "-h", "-d", f"@{age}", "--", "{}", "+")
    argv = ("find", ".", "-path", "./.git", "-prune", "-o", *kinds, *touch)
    return Command(name="find", argv=argv, env=like.env)


def _counted(like: Command) -> list[Command]:
    """Print the size as `du` has it, then the index's head: a name, its version, how many."""
    return [
        Command(name="du", argv=("du", "-s", "-B1", "."), env=like.env),
        Command(name="head", argv=("head", "-c", "12", ".git/index"), env=like.env),
    ]


async def _run(cells: Cells, cell: Cell, commands: Sequence[Command], stdin: bytes = b"") -> Filled:
    command = replace(together(*commands), name="checkout-index")
    result = await cells.run(cell, command, stdin, timeout=_TIMEOUT, limit=_OUTPUT_LIMIT)
    if result.code != 0:
        raise _failure(command, result)
    size, _, rest = result.output.partition(b"\t")
    head = rest.partition(b"\n")[2]
    return Filled(int(size), int.from_bytes(head[8:12], "big"))


def _failure(command: Command, result: Result) -> Exception:
    if found := _INVALID_PATH.search(result.errors):
        return PathForbidden(
            "the commit has a path that git does not allow",
            path=found[1],
            remedy="Use a commit without it.",
        )
    if found := _TOO_LONG.search(result.errors):
        return PathForbidden(
            "the commit has a path that is too long for the disk",
            path=found[1],
            remedy="Use a commit without it.",
        )
    return failed(command.name, result.code, result.errors)


def lay_out(tree: Path, owner: Identity) -> None:
    """Make the directory, and in it what an ordinary `.git` has, without HEAD and refs."""
    files.make_directory(tree, owner)
    template = tree / ".git"
    for name in _TEMPLATE_FOLDERS:
        files.make_directory(template / name, owner)
    contents = {
        "config": _TEMPLATE_CONFIG,
        "info/exclude": drafts.PATTERN + b"\n",
        _LAST: f"{OBJECTS}\n".encode(),
    }
    for name, data in contents.items():
        files.write(template / name, data, owner=owner, durable=False)


def is_laid_out(tree: Path) -> bool:
    """Whether all of that is there."""
    return (tree / ".git" / _LAST).exists()


def _lay_over(tree: Path, over: Over, owner: Identity) -> None:
    # Before git writes: nothing in there leads elsewhere yet.
    layers.make_whiteouts(tree, over.difference.gone, owner)
    if not files.copy_from_cell(over.tree / ".git", "index", tree / ".git" / "index", owner):
        raise OSError("a checkout has no index")


def _cell(repository: Repository, tree: Path | None = None) -> Cell:
    if tree is None:
        return repository.cell()
    binds = [
        Bind(source=repository.objects, target=_STORE),
        Bind(source=tree, target=_TREE, writable=True),
    ]
    return Cell(
        identity=repository.sandbox,
        binds=binds,
        directories=[f"{_GIT}/{name}" for name in ("refs", "objects", "info")],
        files={
            f"{_GIT}/HEAD": b"ref: refs/heads/none\n",
            f"{_GIT}/config": _CONFIG,
            f"{_GIT}/info/attributes": _RAW,
        },
        cwd=_TREE,
    )


def _where(*, index: bool = False) -> Where:
    if not index:
        return Where(git_dir=STORE)
    return Where(
        git_dir=_GIT,
        work_tree=_TREE,
        index=f"{_TREE}/.git/index",
        objects=_STORE,
    )
