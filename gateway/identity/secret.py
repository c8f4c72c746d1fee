"""The secret of a token: how it is made, known by its looks, and hashed.

`cove_`, 43 characters of 256 random bits, and 6 of a checksum: so that programs which look for
secrets in places where none belong find just these, and a mistyped one asks nobody.
"""

import hashlib
import re
import secrets
import zlib
from typing import Final

PREFIX: Final = "cove_"
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH: Final = 43
_SUM_LENGTH: Final = 6
_FORM: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_LENGTH + _SUM_LENGTH}}}")


def new() -> str:
    body = _digits(int.from_bytes(secrets.token_bytes(32)), _LENGTH)
    return PREFIX + body + _sum(body)


def is_one(text: str) -> bool:
    """Whether it has the form of one, checksum and all."""
    body, sum_ = text[len(PREFIX) : -_SUM_LENGTH], text[-_SUM_LENGTH:]
    return _FORM.fullmatch(text) is not None and _sum(body) == sum_


def hash_of(secret: str) -> bytes:
    """What the registry keeps of it."""
    return hashlib.sha256(secret.encode()).digest()


def _sum(body: str) -> str:
    return _digits(zlib.crc32(body.encode()), _SUM_LENGTH)


def _digits(number: int, length: int) -> str:
    found = ""
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        found = _DIGITS[digit] + found
    return found
