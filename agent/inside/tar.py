"""Headers of tar archives, made and read. Nothing that is read is believed.

What is read is plain: files, directories, symbolic and hard links, with names of ustar, pax or GNU
tar. Anything else is refused, as is what two programs could understand differently.
"""

from _collections_abc import Callable

BLOCK = 512
END = bytes(2 * BLOCK)
"""At the end of an archive."""

FILE, DIRECTORY, SYMLINK, HARD_LINK = b"0", b"5", b"2", b"1"
MOST_ENTRIES = 1_000_000
MOST_BYTES = 64 << 30
MOST_DEPTH = 128
"""Names in one path."""

_LONGEST_PATH = 4096
_LONGEST_NAME = 255
_LONGEST_HEADER = 1 << 20
"""Bytes of one extended header; one of a file may hold its extended attributes, which are left."""
_LATEST = 1 << 40
"""Seconds since 1970, far in the future; a later time is left out."""
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""How what gzip, bzip2, xz and zstd made begins. It is not taken: a little would be very much."""
_LONG_NAME, _LONG_TARGET, _PAX, _PAX_ALL = b"L", b"K", b"x", b"g"
_FILES = (FILE, b"\0", b"7")
_SAYS_MORE = (b"path", b"linkpath", b"size")


class TarError(Exception):
    """It is no archive that is unpacked. Holds the name at which that was seen, and why."""

    def __init__(self, why: str, name: bytes = b"") -> None:
        super().__init__(why)
        self.name = name


class TooMuchError(TarError):
    """It exceeds a limit."""


class Member:
    """One entry of an archive."""

    def __init__(self, name: bytes, kind: bytes, size: int, mode: int, mtime: int) -> None:
        self.name = name
        self.kind = kind
        self.size = size
        self.mode = mode
        self.mtime = mtime
        self.target = b""
        """Of a link."""


def header(member: Member) -> bytes:
    """What comes before the content, in the format of GNU tar; names are any bytes."""
    name = member.name + b"/" * (member.kind == DIRECTORY)
    long = b""
    for kind, text in ((_LONG_NAME, name), (_LONG_TARGET, member.target)):
        if len(text) > 100:
            long += _block(b"././@LongLink", kind, len(text) + 1, 0, 0, b"")
            long += text + bytes(1 + padding(len(text) + 1))
    size = member.size if member.kind == FILE else 0
    return long + _block(
        name[:100], member.kind, size, member.mode, member.mtime, member.target[:100]
    )


def padding(size: int) -> int:
    """Bytes after a content of `size` bytes."""
    return -size % BLOCK


def parts(name: bytes) -> tuple[bytes, ...]:
    """The names in a path below where it is unpacked; none for that itself. Raises TarError."""
    if name.startswith(b"/"):
        raise TarError("an absolute path", name)
    found = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in found:
        raise TarError("a path that leads out", name)
    if not name or b"\0" in name:
        raise TarError("no path", name)
    if len(name) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in found):
        raise TooMuchError("a path that is too long", name)
    if len(found) > MOST_DEPTH:
        raise TooMuchError("too many directories within each other", name)
    return found


def check_target(where: tuple[bytes, ...], target: bytes) -> None:
    """Raises TarError for a symbolic link, at `where`, that could lead out.

    Upwards it leads at its beginning only: after a name, which may be a link too, nobody knows
    where `..` is. So each link stays inside if all others do.
    """
    name = b"/".join(where)
    if not target or b"\0" in target or len(target) > _LONGEST_PATH - 1:
        raise TarError("a link without a target that is possible", name)
    steps = [part for part in target.split(b"/") if part not in (b"", b".")]
    up = 0
    while steps[up : up + 1] == [b".."]:
        up += 1
    if target.startswith(b"/") or up >= len(where) or b".." in steps[up:]:
        raise TarError("a link that leads out", name)


class Reader:
    """Reads headers by `exact`, which gives just so many bytes or raises TarError."""

    def __init__(self, exact: Callable[[int], bytes]) -> None:
        self._exact = exact

    def next(self) -> Member | None:
        """The next entry, whose content and padding follow; None at the end of the archive."""
        said: dict[bytes, bytes] = {}
        while True:
            block = self._exact(BLOCK)
            if not block.strip(b"\0"):
                if said:
                    raise TarError("it ends in the midst of an entry")
                return None
            _check_sum(block)
            kind = block[156:157]
            if kind == _PAX:
                _add(said, _pax(self._extended(block)))
            elif kind == _PAX_ALL:
                _ignore(_pax(self._extended(block)))
            elif kind == _LONG_NAME:
                _add(said, {b"path": _text(self._extended(block))})
            elif kind == _LONG_TARGET:
                _add(said, {b"linkpath": _text(self._extended(block))})
            else:
                return _member(block, kind, said)

    def _extended(self, block: bytes) -> bytes:
        size = _number(block[124:136])
        if size > _LONGEST_HEADER:
            raise TooMuchError("a header that is too long")
        data = self._exact(size)
        self._exact(padding(size))
        return data


def _member(block: bytes, kind: bytes, said: dict[bytes, bytes]) -> Member:
    name = said.get(b"path") or _ustar_name(block)
    size = _decimal(said[b"size"]) if b"size" in said else _number(block[124:136])
    if kind in _FILES:
        kind = DIRECTORY if name.endswith(b"/") and kind == b"\0" else FILE
    elif kind not in (DIRECTORY, SYMLINK, HARD_LINK):
        what = "a device or pipe" if kind in (b"3", b"4", b"6") else "an entry of unknown kind"
        raise TarError(what, name)
    if size and kind != FILE:
        raise TarError("content where there can be none", name)
    mtime = _time(said[b"mtime"]) if b"mtime" in said else _number(block[136:148])
    member = Member(name, kind, size, _number(block[100:108]) & 0o7777, min(mtime, _LATEST))
    if kind in (SYMLINK, HARD_LINK):
        member.target = said.get(b"linkpath") or _text(block[157:257])
    return member


def _ustar_name(block: bytes) -> bytes:
    name, prefix = _text(block[:100]), _text(block[345:500])
    posix = block[257:263] == b"ustar\0"
    return prefix + b"/" + name if posix and prefix else name


def _add(said: dict[bytes, bytes], more: dict[bytes, bytes]) -> None:
    for key, value in more.items():
        if key in said and key in _SAYS_MORE:
            raise TarError("two headers say the same", value)
        said[key] = value


def _pax(data: bytes) -> dict[bytes, bytes]:
    """The records of an extended header that matter."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        length = data[at:space] if space > 0 else b""
        if not length.isdigit() or not at + 4 < at + int(length) <= len(data):
            raise TarError("a malformed header")
        record = data[space + 1 : at + int(length)]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise TarError("a malformed header")
        value = value[:-1]
        if key.startswith(b"GNU.sparse"):
            raise TarError("a sparse file", found.get(b"path", b""))
        if key in _SAYS_MORE:
            if b"\0" in value or not value:
                raise TarError("a malformed header", value)
            _add(found, {key: value})
        elif key == b"mtime":
            found[key] = value
        at += int(length)
    return found


def _ignore(said: dict[bytes, bytes]) -> None:
    """What is said of all entries at once must not matter."""
    for key in said:
        if key in _SAYS_MORE:
            raise TarError("one name or size for all entries")


def _check_sum(block: bytes) -> None:
    try:
        said = _number(block[148:156])
    except TarError:
        said = 1 << 30  # No block adds up to that.
    zeroed = block[:148] + b" " * 8 + block[156:]
    # Some programs add up what they take for signed; hardly any, and it takes its time.
    if said != sum(zeroed) and said != sum(byte - 256 * (byte > 127) for byte in zeroed):
        compressed = block.startswith(_COMPRESSED)
        raise TarError("it is compressed" if compressed else "not an archive, or a damaged one")


def _number(field: bytes) -> int:
    """Octal text, or the binary form of GNU tar. Raises TarError, also when it is negative."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise TarError("a number that is negative or too large")
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip(b" ")
    if text.strip(b"01234567"):
        raise TarError("a malformed number")
    return int(text, 8) if text else 0


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise TarError("a malformed number")
    return int(text)


def _time(text: bytes) -> int:
    """Whole seconds; a time before 1970 is 0."""
    whole = text.partition(b".")[0]
    return 0 if whole.startswith(b"-") else _decimal(whole or b"0")


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _block(name: bytes, kind: bytes, size: int, mode: int, mtime: int, target: bytes) -> bytes:
    block = bytearray(BLOCK)
    block[: len(name)] = name
    for at, digits, value in ((100, 7, mode), (108, 7, 0), (116, 7, 0), (124, 11, size)):
        block[at : at + digits + 1] = _octal(value, digits)
    block[136:148] = _octal(max(0, mtime), 11)
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + len(target)] = target
    block[257:265] = b"ustar  \0"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _octal(value: int, digits: int) -> bytes:
    text = b"%0*o\0" % (digits, value)
    return text if len(text) == digits + 1 else b"\x80" + value.to_bytes(digits, "big")
