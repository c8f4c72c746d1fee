"""Packs of whole objects, and their index: gitformat-pack, version 2 of both."""

import os
import secrets
import zlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from hashlib import sha1
from typing import Final, NamedTuple

from agent.writeback import write_out

HEAD: Final = b"PACK\0\0\0\2"
KINDS: Final[Mapping[bytes, int]] = {b"commit": 1, b"tree": 2, b"blob": 3}
LEVEL: Final = 1
"""Of compression: git packs anew what stays."""
UNFINISHED: Final = "tmp_"
"""Names that begin so are of what was not finished, as with git."""
_INDEX: Final = b"\377tOc\0\0\0\2"


class Item(NamedTuple):
    """An object."""

    kind: bytes
    data: bytes


def header(kind: bytes, size: int) -> bytes:
    """Of an object in a pack: its kind and its length, seven bits a byte, the lowest first."""
    byte, rest = KINDS[kind] << 4 | size & 15, size >> 4
    made = bytearray()
    while rest:
        made.append(byte | 0x80)
        byte, rest = rest & 0x7F, rest >> 7
    made.append(byte)
    return bytes(made)


def write(objects: str, items: Mapping[str, Item]) -> None:
    """Write objects by their ids into a new pack of the directory `objects`. Raises OSError.

    Its content is on the disk then; where a file system keeps the order of its journal, the rest
    comes with the sync of the ref that is going to name it.
    """
    parts, entries, position = [HEAD + len(items).to_bytes(4, "big")], [], 12
    for identifier, (kind, data) in items.items():
        part = header(kind, len(data)) + zlib.compress(data, LEVEL)
        entries.append((bytes.fromhex(identifier), zlib.crc32(part), position))
        parts.append(part)
        position += len(part)
    pack = _signed(b"".join(parts))
    index = _index(sorted(entries), pack[-20:])
    folder = f"{objects}/pack"
    os.makedirs(folder, exist_ok=True)
    name = f"{folder}/pack-{pack[-20:].hex()}"
    unfinished = f"{folder}/{UNFINISHED}{secrets.token_hex(8)}"
    _write_all({f"{unfinished}.pack": pack, f"{unfinished}.idx": index}, folder)
    for ending in ("pack", "idx"):  # A reader that sees the index looks for the pack.
        os.rename(f"{unfinished}.{ending}", f"{name}.{ending}")


def _index(entries: Iterable[tuple[bytes, int, int]], signature: bytes) -> bytes:
    """Of entries in the order of their ids: id, checksum and position."""
    ids, checks, positions, counts = [], [], [], [0] * 256
    for identifier, check, position in entries:
        ids.append(identifier)
        checks.append(check.to_bytes(4, "big"))
        positions.append(position.to_bytes(4, "big"))
        counts[identifier[0]] += 1
    fan, total = [], 0
    for count in counts:
        total += count
        fan.append(total.to_bytes(4, "big"))
    return _signed(_INDEX + b"".join([*fan, *ids, *checks, *positions]) + signature)


def _signed(data: bytes) -> bytes:
    return data + sha1(data, usedforsecurity=False).digest()


def _write_all(files: Mapping[str, bytes], directory: str) -> None:
    with ExitStack() as stack:
        opened = list[int]()
        for path, data in files.items():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            file = stack.enter_context(open(os.open(path, flags, 0o444), "wb", buffering=0))
            opened.append(file.fileno())
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
        write_out(opened, directory)
