"""The handle by which a driver finds an environment again.

Opaque to everyone but drivers. It is no secret and proves nothing: what it names is looked up.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Final, Self

_PLAIN: Final = "1"
_PLACED: Final = "2"
"""Has an engine and a locator, which _PLAIN has not."""
_UID: Final = re.compile(r"[a-z2-7]{16}")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LOCATOR: Final = re.compile(r"[A-Za-z0-9._~=+/-]{1,4096}")
_LONGEST: Final = 8192


def valid_uid(uid: str) -> bool:
    """Whether `uid` is one the registry makes; only such a uid may become part of a path."""
    return _UID.fullmatch(uid) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """Which driver, on which node, keeps which environment, and which making of it."""

    driver: str
    node: str
    uid: str
    generation: int = 1
    """Grows where handles move: the one with the highest is in force."""
    engine: str = ""
    """Of a driver that stands on several: which of them."""
    locator: str = ""
    """By which the engine finds it; what that means only the driver knows."""

    def encode(self) -> bytes:
        """Opaque bytes that `decode` reads back, if every part is one that may be in a handle."""
        plain = f"{self.driver}:{self.node}:{self.uid}:{self.generation}"
        text = f"{_PLAIN}:{plain}"
        if self.engine or self.locator:
            text = f"{_PLACED}:{plain}:{self.engine}:{self.locator}"
        return urlsafe_b64encode(text.encode()).rstrip(b"=")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises ValueError when `data` is no handle of a version known here."""
        if len(data) > _LONGEST:
            raise ValueError("handle too long")
        try:
            plain = urlsafe_b64decode(data + b"=" * (-len(data) % 4)).decode("ascii")
        except ValueError as error:
            raise ValueError("not a handle") from error
        version, *rest = plain.split(":")
        if (version, len(rest)) not in ((_PLAIN, 4), (_PLACED, 6)):
            raise ValueError("handle of an unknown version")
        driver, node, uid, generation, *placed = rest
        if not (_NAME.fullmatch(driver) and _NAME.fullmatch(node) and valid_uid(uid)):
            raise ValueError("not a handle")
        if not (generation.isascii() and generation.isdecimal() and len(generation) <= 10):
            raise ValueError("not a handle")
        if placed and not (_NAME.fullmatch(placed[0]) and _LOCATOR.fullmatch(placed[1])):
            raise ValueError("not a handle")
        engine, locator = placed or ("", "")
        return cls(
            driver=driver,
            node=node,
            uid=uid,
            generation=int(generation),
            engine=engine,
            locator=locator,
        )
