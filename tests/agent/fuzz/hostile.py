"""Archives and paths as somebody hostile would make them, for hypothesis."""

from hypothesis import strategies as st

BLOCK = 512

names = st.one_of(
    st.sampled_from(
        [b"a", b"b", b"c", b"a", b"b", b"..", b".", b"", b"out", b"in", b"\xff", b"\n"]
    ),
    st.sampled_from([b"l" * 255, b"m" * 256, b"\0", b"a\0b"]),
    st.binary(min_size=1, max_size=3),
)
paths = st.builds(
    lambda root, parts: root + b"/".join(parts),
    st.sampled_from([b"", b"", b"", b"./", b"/", b"../"]),
    st.lists(names, min_size=1, max_size=5),
)
upwards = st.lists(st.sampled_from([b"..", b"a", b"b", b"out"]), min_size=1, max_size=4).map(
    b"/".join
)
deep = st.integers(100, 300).map(lambda depth: b"/".join([b"d"] * depth))
kinds = st.sampled_from(
    [b"0", b"0", b"0", b"5", b"5", b"2", b"2", b"1", b"\0", *b"3467SVDLKxgXA"]
).map(lambda kind: kind if isinstance(kind, bytes) else bytes([kind]))
numbers = st.one_of(
    st.integers(0, 1 << 40).map(lambda value: b"%011o\0" % (value & 0o77777777777)),
    st.sampled_from(
        [b"", b"-1", b"+7", b" 12 ", b"0x10", b"99", b"\x80" + b"\xff" * 11, b"\xff" * 12]
    ),
    st.sampled_from([b"\x80" + bytes(3) + b"\x7f" + bytes(7), b"77777777777", b"1_0", b"\xb2"]),
)


def header(
    name: bytes, kind: bytes, size: bytes, mode: int, target: bytes, prefix: bytes, mtime: bytes
) -> bytes:
    """One block with a right sum."""
    block = bytearray(BLOCK)
    magic = b"ustar\x0000" if prefix else b"ustar  \0"
    for at, most, value in (
        *((0, 100, name), (100, 8, b"%07o" % mode), (124, 12, size), (136, 12, mtime)),
        *((148, 8, b" " * 8), (156, 1, kind), (157, 100, target), (257, 8, magic)),
        (345, 155, prefix),
    ):
        value = value[:most]
        block[at : at + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def octal(size: int) -> bytes:
    return b"%011o\0" % size


@st.composite
def extensions(draw: st.DrawFn) -> bytes:
    """Headers before an entry, pax or GNU's."""
    made = b""
    for _ in range(draw(st.integers(0, 2))):
        if draw(st.booleans()):
            kind = draw(st.sampled_from([b"L", b"K"]))
            data = draw(st.one_of(paths, deep)) + draw(st.sampled_from([b"\0", b""]))
        else:
            kind = draw(st.sampled_from([b"x", b"x", b"g"]))
            data = b"".join(draw(st.lists(records(), max_size=3)))
        size = draw(st.one_of(st.just(octal(len(data))), numbers))
        made += header(b"././@LongLink", kind, size, 0, b"", b"", b"") + padded(data)
    return made


@st.composite
def records(draw: st.DrawFn) -> bytes:
    key = draw(
        st.sampled_from(
            b"path linkpath size mtime hdrcharset SCHILY.xattr.user.a GNU.sparse.major "
            b"GNU.sparse.name GNU.sparse.map GNU.sparse.realsize".split()
        )
    )
    value = draw(st.one_of(paths, numbers, st.sampled_from([b"-1", b"1e9", b"nan", b"inf", b"7"])))
    text = b" " + key + b"=" + value + b"\n"
    length = len(text) + len(str(len(text) + 2))
    return b"%d" % (length + draw(st.sampled_from([0, 0, 0, 0, 1, -1, 10_000]))) + text


@st.composite
def entries(draw: st.DrawFn) -> bytes:
    kind = draw(kinds)
    content = draw(st.binary(max_size=40)) if kind in (b"0", b"\0", b"7", b"S", b"x", b"L") else b""
    size = draw(st.one_of(*[st.just(octal(len(content)))] * 6, numbers))
    return (
        draw(extensions())
        + header(
            draw(paths),
            kind,
            size,
            draw(st.integers(0, 0o7777)),
            draw(st.one_of(paths, upwards)),
            draw(st.one_of(st.just(b""), st.just(b""), paths)),
            draw(st.one_of(st.just(octal(10**9)), numbers)),
        )
        + padded(content)
    )


tame_names = st.lists(st.sampled_from([b"a", b"b", b"in", b"out"]), min_size=1, max_size=3).map(
    b"/".join
)


@st.composite
def tame(draw: st.DrawFn) -> bytes:
    """An entry that may well be unpacked, so that what follows meets it."""
    kind = draw(st.sampled_from([*[b"0", b"5", b"2"] * 3, b"2", b"1"]))
    content = draw(st.binary(max_size=9)) if kind == b"0" else b""
    target = draw(tame_names if kind == b"1" else st.one_of(tame_names, st.just(b".."), upwards))
    mode = draw(st.integers(0, 0o7777))
    block = header(draw(tame_names), kind, octal(len(content)), mode, target, b"", octal(10**9))
    return block + padded(content)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    made = draw(st.lists(tame(), max_size=5))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        made.insert(draw(st.integers(0, len(made))), draw(entries()))
    data = b"".join(made) + bytes(2 * BLOCK)
    damage = draw(st.integers(0, 19))
    if damage == 0:
        return data[: draw(st.integers(0, len(data)))]
    if damage == 1:
        at = draw(st.integers(0, len(data) - 1))
        return data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
    return data
