"""Reads what `git merge-tree -z` prints: the tree, and what could not be merged.

Its paths are of any bytes, its messages for people; only the short words before a
message are fixed, and say of which kind a conflict is.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from services.git.command import check_id

LIMIT: Final = 1000
"""Conflicts that are kept; further ones are counted."""
_BYTES: Final = 1 << 20  # Of the paths and messages of those kept.
_MESSAGE: Final = 1000
_RELATED: Final = 8


class Kind(Enum):
    """What is in the way."""

    OTHER = auto()
    CONTENT = auto()
    BINARY = auto()
    ADD_ADD = auto()
    MODIFY_DELETE = auto()
    RENAME_DELETE = auto()
    RENAME_RENAME = auto()
    FILE_DIRECTORY = auto()
    SUBMODULE = auto()
    MODE = auto()
    DIRECTORY_RENAME = auto()


# By the words in their brackets. Of several for one path, the first here is its kind.
_KINDS: Final[Mapping[bytes, Kind]] = {
    b"submodule": Kind.SUBMODULE,
    b"rename/rename": Kind.RENAME_RENAME,
    b"rename involved in collision": Kind.RENAME_RENAME,
    b"rename/delete": Kind.RENAME_DELETE,
    b"file/directory": Kind.FILE_DIRECTORY,
    b"directory rename": Kind.DIRECTORY_RENAME,
    b"file in way of directory rename": Kind.DIRECTORY_RENAME,
    b"distinct modes": Kind.MODE,
    b"modify/delete": Kind.MODIFY_DELETE,
    b"binary": Kind.BINARY,
    b"contents": Kind.CONTENT,
}
_RANKS: Final = {kind: rank for rank, kind in enumerate(dict.fromkeys(_KINDS.values()))}


@dataclass(frozen=True, slots=True)
class Stage:
    """One side of a path. `mode` is as git writes it; `id` that of a blob, or of a commit."""

    mode: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A path that could not be merged; a side that has nothing there is None."""

    path: bytes
    kind: Kind
    related: Sequence[bytes] = ()
    """Other paths that are part of it, such as those before a rename."""
    base: Stage | None = None
    ours: Stage | None = None
    theirs: Stage | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A merge: its tree, and the first of what is in the way, in the order of the paths."""

    tree: str
    conflicts: Sequence[Conflict] = ()
    total: int = 0
    """All conflicts, also those not kept."""


@dataclass(slots=True)
class _Told:
    """What messages say of one path."""

    kinds: list[Kind] = field(default_factory=list)
    related: dict[bytes, None] = field(default_factory=dict)
    texts: dict[bytes, None] = field(default_factory=dict)


def read(output: bytes, names: Mapping[str, str], *, clean: bool) -> Merged:
    """Read the output of one merge; `names` says what to call commit ids in messages.

    Raises ValueError for what git does not print.
    """
    tree, _, rest = output.partition(b"\0")
    if clean:
        return Merged(tree=check_id(tree))
    entries, _, messages = rest.partition(b"\0\0") if rest[:1] != b"\0" else (b"", b"", rest[1:])
    stages = _stages(entries)
    told = _told(messages, stages)
    paths = sorted(stages.keys() | told.keys())
    kept = list(_bounded(_conflict(path, stages, told, names) for path in paths[:LIMIT]))
    return Merged(tree=check_id(tree), conflicts=kept, total=len(paths))


def read_many(output: bytes) -> Iterator[Merged]:
    """Read what `git merge-tree --stdin` prints: one merge after the other.

    Raises ValueError for what git does not print.
    """
    fields = output.split(b"\0")
    at = 0
    while at < len(fields) - 1:
        clean, start = fields[at] == b"1", at + 1
        at = fields.index(b"", start) + 1
        while at < len(fields) and fields[at].isdigit():
            at += int(fields[at]) + 3
        # What closes it is empty, or advice for people.
        yield read(b"\0".join([*fields[start:at], b""]), {}, clean=clean)
        at += 1


def _stages(entries: bytes) -> dict[bytes, dict[int, Stage]]:
    found: dict[bytes, dict[int, Stage]] = {}
    for entry in entries.split(b"\0"):
        if not entry:
            continue
        facts, _, path = entry.partition(b"\t")
        mode, identity, number = facts.decode("ascii").split(" ")
        found.setdefault(path, {})[int(number)] = Stage(mode, identity)
    return found


def _told(messages: bytes, stages: Mapping[bytes, object]) -> dict[bytes, _Told]:
    """What is in the way, by path; what belongs to no path of `stages` by its own first one."""
    told: dict[bytes, _Told] = {}
    for paths, words, text in _messages(messages):
        if (kind := _kind(words)) is None:
            continue
        for path in [path for path in paths if path in stages] or paths[:1]:
            found = told.setdefault(path, _Told())
            found.kinds.append(kind)
            found.texts[text.strip()] = None
            found.related.update(dict.fromkeys(other for other in paths if other != path))
    return told


def _messages(data: bytes) -> Iterator[tuple[list[bytes], bytes, bytes]]:
    """The paths, the fixed words and the text of each message.

    What comes after the last one is advice for people.
    """
    fields = data.split(b"\0")
    at = 0
    while at < len(fields) and fields[at].isdigit():
        count = int(fields[at])
        paths, rest = fields[at + 1 : at + 1 + count], fields[at + 1 + count : at + 3 + count]
        if len(rest) != 2 or not paths:
            raise ValueError("a message of git is cut")
        yield paths, rest[0], rest[1]
        at += count + 3


def _kind(words: bytes) -> Kind | None:
    """None for what tells of no conflict."""
    name, _, rest = words.partition(b"(")
    if not name.startswith(b"CONFLICT"):
        return None
    known = [kind for start, kind in _KINDS.items() if rest.startswith(start)]
    return known[0] if known else Kind.OTHER


def _conflict(
    path: bytes,
    stages: Mapping[bytes, Mapping[int, Stage]],
    told: Mapping[bytes, _Told],
    names: Mapping[str, str],
) -> Conflict:
    sides, said = stages.get(path, {}), told.get(path, _Told())
    kind = min(said.kinds, key=lambda one: _RANKS.get(one, len(_RANKS)), default=Kind.OTHER)
    if kind is Kind.CONTENT and 1 not in sides and sides:
        kind = Kind.ADD_ADD
    text = b"\n".join(said.texts).decode("utf-8", "replace")
    for identity, name in names.items():
        text = text.replace(identity, name)
    return Conflict(
        path=path,
        kind=kind,
        related=tuple(said.related)[:_RELATED],
        base=sides.get(1),
        ours=sides.get(2),
        theirs=sides.get(3),
        message=text[:_MESSAGE],
    )


def _bounded(conflicts: Iterable[Conflict]) -> Iterator[Conflict]:
    left = _BYTES
    for conflict in conflicts:
        left -= len(conflict.path) + sum(map(len, conflict.related)) + len(conflict.message)
        if left < 0:
            return
        yield conflict
