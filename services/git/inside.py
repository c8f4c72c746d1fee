"""The private `.git` of the sandbox, seen from outside: read as data, believed in nothing.

What is read of it is one id: the commit that HEAD means. Commits that were made inside come
into the repository as those of a remote would: as a pack, which is checked. The other way, the
agent inside is told of a head that has moved, and moves HEAD and the index by itself.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from servicekit.disk import DiskFull
from servicekit.errors import ServiceError, Unavailable
from services.git import dotgit, files
from services.git.cell import Cell, Identity, timed_out_as
from services.git.command import Command, Where, git
from services.git.errors import CellLost, Diverged, HeadMoved, InsideRejected, failed, is_full
from services.git.process import Result, close_all
from services.git.record import Record
from services.git.records import Records
from services.git.repository import head_ref
from services.git.transport import STORE
from services.git.workspace import Astray, Workspace

MAX_COMMITS: Final = 10_000
"""That come in at once."""
_MAX_BYTES: Final = 1 << 30
_EXCLUDED: Final = 500
"""Branches of the origin that a pack of commits made inside need not hold again."""
_TIMEOUT: Final = 300
_PAUSE: Final = 60.0
"""Seconds until what was not taken is looked at again, unless a head moves; at once where something
broke off that has nothing to do with it."""
_BEFORE: Final = 80
"""Heads; the agent reads no more than 4 KiB."""
_NOTHING: Final = "0" * 40
_CONFIG: Final = (
    "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tlogallrefupdates = true\n"
    "[gc]\n\tauto = 0\n"
)
_VERSION_0: Final = "[core]\n\trepositoryformatversion = 0\n"
# Git takes what a filter left out for contents that the origin has: it is no damage.
_VERSION_1: Final = "[extensions]\n\tpartialClone = origin\n[core]\n\trepositoryformatversion = 1\n"
_REMEDY: Final = (
    "Inside, bring both together (git rebase {head}, or git reset --hard {head}), and try again."
)


async def take(
    records: Records, record: Record, workspace: Workspace, most: int = MAX_COMMITS
) -> Record:
    """Bring in what was committed inside since this was last looked at. Call it locked.

    Where both sides went on, or git does not take what there is, nothing changes; a commit
    from outside is then refused by `check_followed`.
    """
    found, head = dotgit.tip(workspace), workspace.head
    if found in ("", record.inside):
        workspace.astray = None
        if found == record.inside != head and workspace.told != head:
            # A service that was killed, or whose caller left, made a commit and no more.
            tell(workspace, record.branch, found, head)
        return record
    astray = workspace.astray
    if astray and (found, head) == astray[:2] and time.monotonic() < astray.again:
        return record
    try:
        taken = await _take(records, record, workspace, found, head, most)
        workspace.astray = None
        return taken
    except ServiceError as error:
        passing = isinstance(error, Unavailable | HeadMoved | DiskFull)
        again = time.monotonic() + (0 if passing else _PAUSE)
        workspace.astray = Astray(found, head, error, again)
        return record


async def _take(
    records: Records, record: Record, workspace: Workspace, found: str, head: str, most: int
) -> Record:
    repository = workspace.repository
    followed = head != record.inside and workspace.has_led(found, head)
    if found != head and not followed:
        if not await repository.has(found):
            await _import(workspace, found, head, most)
            if not await repository.has(found):
                raise InsideRejected("the head inside is not a commit", inside=found)
        with repository.writing():
            if head != record.inside and not await repository.is_ancestor(head, found):
                if not await repository.is_ancestor(found, head):
                    raise Diverged(
                        "commits were made both inside and outside",
                        inside=found,
                        head=head,
                        remedy=_REMEDY.format(head=head),
                    )
            elif not await repository.update_refs(
                [f"update {head_ref(record.uid)} {found} {head or _NOTHING}"]
            ):
                raise HeadMoved("the branch has moved", expected=head, actual=workspace.head)
    # What a power loss takes of this is found again by the next look, so nobody waits for a disk.
    return await records.keep(replace(record, inside=found), durable=False)


def check_followed(workspace: Workspace) -> None:
    """Raises what kept commits made inside from being taken, if there are such."""
    if workspace.astray is not None:
        raise workspace.astray.error


async def _import(workspace: Workspace, found: str, head: str, most: int) -> None:
    repository, cells = workspace.repository, workspace.cells
    files.make_directory(workspace.paths.scratch, repository.sandbox)
    known = await repository.refs("refs/remotes/origin/")
    have = [commit for commit in (head, *list(known.values())[:_EXCLUDED]) if commit]
    wanted = "\n".join([found, *(f"^{commit}" for commit in have), ""]).encode()
    cell, where = workspace.cell(), workspace.inside_objects()
    await _check_kinds(workspace, cell, where, found)
    count = git(where, "rev-list", ["--count", f"--max-count={most + 1}", "--stdin"])
    result = await cells.run(cell, count, wanted)
    _check_whole(result)
    if result.code != 0:
        raise InsideRejected(
            "commits made inside cannot be read", inside=found, cause=result.errors[-300:]
        )
    if int(result.output) > most:
        raise InsideRejected(f"more than {most} commits were made inside", inside=found)
    pack = git(where, "pack-objects")
    check = git(Where(git_dir=STORE), "index-pack", [f"--max-input-size={_MAX_BYTES}"])
    reading, writing = os.pipe()
    ends = [reading, writing]
    async with AsyncExitStack() as stack:
        stack.callback(close_all, ends)
        stack.enter_context(repository.writing())
        stack.enter_context(timed_out_as("pack-objects"))
        await stack.enter_async_context(asyncio.timeout(_TIMEOUT))
        source = await stack.enter_async_context(cells.started(cell, pack, stdout=writing))
        target = await stack.enter_async_context(
            cells.started(repository.cell(writable=True), check, stdin=reading)
        )
        close_all(ends)
        packed = await source.finish(wanted, limit=1 << 20)
        done = await target.finish(limit=1 << 20)
    if packed.code or done.code:
        repository.doubt()
        _check_whole(packed, done)
        if is_full(done.errors):
            raise failed(check.name, done.code, done.errors)
        raise InsideRejected(
            "git does not take what was committed inside",
            inside=found,
            cause=f"{packed.errors}{done.errors}"[-300:],
        )


def _check_whole(*results: Result) -> None:
    """Raises `CellLost` where one was killed, which says nothing of what it was given."""
    if any(result.code == -signal.SIGKILL for result in results):
        raise CellLost("git was killed while it took commits made inside", command="index-pack")


async def _check_kinds(workspace: Workspace, cell: Cell, where: Where, found: str) -> None:
    """Git would wait for a pipe that has the name of an object."""
    folders = [where.objects, *where.alternates.split(":")[1:]]
    argv = ("find", *folders, "(", "-type", "p", "-o", "-type", "l", ")", "-print", "-quit")
    strange = await workspace.cells.run(
        cell, Command(name="find", argv=argv, env=git(where, "version").env)
    )
    if strange.output:
        raise InsideRejected("there is a pipe or a link among the objects", inside=found)


def tell(workspace: Workspace, branch: str, old: str, new: str) -> None:
    """Let those inside know that a commit outside moved the head from `old` to `new`.

    Who has not followed yet finds in `before` the heads that only such commits led on from.
    """
    path = workspace.paths.outside / "head"
    before: list[str] = []
    with suppress(FileNotFoundError, ValueError, KeyError):
        last = json.loads(path.read_bytes())
        if last["to"] == old:
            before = [last["from"], *last.get("before", [])][:_BEFORE]
    told = {"branch": branch, "from": old, "to": new, "before": before}
    with suppress(FileNotFoundError):  # The worktree was removed.
        files.write(path, json.dumps(told).encode(), durable=False)
    workspace.told = new


def make(
    tree: Path,
    owner: Identity,
    record: Record,
    commit: str,
    refs: Sequence[tuple[str, str]],
    shallow: bytes = b"",
) -> None:
    """Write what `.git` holds beyond what its checkout has, before anybody is inside.

    `shallow` are the commits at which history ends, as git writes them.
    """
    folder = tree / ".git"
    files.make_directory(folder, owner)
    lines = [(f"refs/heads/{record.branch}", commit)] if commit else []
    packed = "".join(f"{value} {name}\n" for name, value in sorted([*lines, *refs]))
    contents = {"HEAD": f"ref: refs/heads/{record.branch}\n"}
    if packed:
        contents["packed-refs"] = f"# pack-refs with: sorted \n{packed}"
    if record.repository:
        contents["config"] = _CONFIG + (
            f'[remote "origin"]\n\turl = "{_quoted(record.repository)}"\n'
            "\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
        )
    if record.filter:
        contents["config"] = (
            contents["config"].replace(_VERSION_0, _VERSION_1) + "\tpromisor = true\n"
        )
    if shallow:
        contents["shallow"] = shallow.decode("ascii", "replace")
    for name, content in contents.items():
        data = content.encode("utf-8", "surrogateescape")
        files.write(folder / name, data, owner=owner, durable=False)


def turn(tree: int, owner: Identity, branch: str, commit: str) -> None:
    """Put `.git` below the directory `tree` on a branch of its own. Nobody is inside.

    What is there may be anything: where `.git` is no directory it stays as it is.
    """
    contents = {b".git/HEAD": f"ref: refs/heads/{branch}\n"}
    if commit:
        contents[b".git/refs/heads/" + branch.encode()] = f"{commit}\n"
    with suppress(FileExistsError, NotADirectoryError):
        for path, text in contents.items():
            files.write_beneath(tree, path, text.encode(), owner)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
