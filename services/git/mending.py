"""Looks whether what worktrees stand on is there, and mends refs, when no service runs.

All that reads objects is done in cells, as the service does it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.git import provenance, refs, shelf
from services.git.cell import Cells
from services.git.command import Where, git
from services.git.record import Mode, Record, State, layers_of
from services.git.repositories import folder
from services.git.repository import Repository, head_ref, kept_ref
from services.git.stacks import EMPTY
from services.git.transport import STORE

HOMES: Final = ("repositories", "worktrees", "checkouts", "layers")
_OURS: Final = ("refs/cove/", "refs/notes/cove/")
_ASIDE: Final = "refs/lost/"
_FSCK: Final = 3600
_LONG: Final = 500


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that a worktree stands on, and is not there."""

    kind: str
    found: str


def repository_of(root: Path, record: Record) -> Path:
    """Below `root`, the state directory of git."""
    return root / "repositories" / folder(record.tenant) / f"{record.key}.git"


def lacks(root: Path, record: Record) -> Iterator[Lack]:
    """What a complete worktree misses."""
    if record.state is not State.READY:
        return
    directory = root / "worktrees" / record.uid
    tree = directory / ("tree" if record.mode is Mode.PLAIN else "upper")
    if not tree.is_dir():
        yield Lack("files-missing", f"its {tree.name} is not there")
    for name in dict.fromkeys(layers_of(record)):
        if name != record.freezing and not (root / "layers" / name).is_dir():
            yield Lack("layer-missing", f"layer {name} is not there")
    repository = repository_of(root, record)
    if not (repository / "HEAD").is_file():
        yield Lack("repository-missing", f"its repository {record.key} is not there")
        return
    if record.mode is not Mode.PLAIN and record.checkout:
        home = root / "checkouts" / folder(record.tenant) / record.key
        if not _whole(home, record.checkout):
            yield Lack("checkout-missing", f"the checkout of {record.checkout} is not there")
    if record.base_commit or record.last_commit:
        head = ""
        with suppress(ValueError):
            head = refs.find(repository, head_ref(record.uid))
        if not head:
            yield Lack("ref-missing", f"{head_ref(record.uid)} is not there, or is damaged")


def _whole(home: Path, commit: str) -> bool:
    """Whether a checkout is there, with all it is a layer over."""
    while commit:
        meta = shelf.meta(home / commit)
        if meta is None or not (home / commit / "tree").is_dir():
            return False
        commit = meta.parent
    return True


def unknown_layers(root: Path, records: Sequence[Record]) -> list[str]:
    """Names of frozen layers that nobody stands on."""
    known = {*(name for each in records for name in layers_of(each))}
    with suppress(FileNotFoundError):
        names = (path.name for path in (root / "layers").iterdir())
        ours = (name for name in names if not name.startswith((".", EMPTY)))
        return sorted(name for name in ours if name not in known)
    return []


def unknown_refs(path: Path, records: Sequence[Record]) -> Mapping[str, str]:
    """Refs of worktrees and snapshots, of this repository, that are not there.

    Those of commits that are kept for other nodes are known by the records beside them.
    """
    known = {kept_ref(kept.stem) for kept in path.parents[2].glob("kept/*.json")}
    for each in records:
        known |= {head_ref(each.uid), provenance.notes_ref(each.uid)}
        known |= {head_ref(f"{each.uid}/snapshots/{one.id}") for one in each.snapshots}
    return {name: value for name, value in refs.read(path, _OURS).items() if name not in known}


class Mender:
    """Does what takes git."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    async def fsck(self, path: Path) -> str:
        """What git says of all objects of a repository; empty: nothing is wrong."""
        repository = Repository(path, self._cells)
        command = git(Where(git_dir=STORE), "fsck")
        result = await self._cells.run(repository.cell(), command, timeout=_FSCK)
        if result.code == 0:
            return ""
        said = result.output.decode(errors="replace") + result.errors
        return " ".join(said.split())[:_LONG] or f"git fsck ended with {result.code}"

    async def set_aside(self, path: Path, found: Mapping[str, str]) -> bool:
        """Give refs names below refs/lost, where they keep their commits; whether that went."""
        lines = []
        for name, value in found.items():
            aside = _ASIDE + name.removeprefix("refs/")
            lines += [f"update {aside} {value}", f"delete {name} {value}"]
        return await Repository(path, self._cells).update_refs(lines)

    async def point(self, path: Path, record: Record) -> str:
        """Set the ref of a worktree to the last head that is known of it; empty: none is here."""
        repository = Repository(path, self._cells)
        ref = head_ref(record.uid)
        for commit in dict.fromkeys((record.last_commit, record.inside, record.base_commit)):
            if commit and await repository.has(commit):
                (path / ref).unlink(missing_ok=True)  # Git would not replace a damaged one.
                if await repository.update_refs([f"update {ref} {commit}"]):
                    return commit
        return ""
