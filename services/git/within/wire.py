"""What operations and the service say to each other: JSON in a frame.

JSON has no bytes: they are written as the text that latin-1 makes of them.
"""

import json
from typing import Any

from services.git.within.frames import WireError

Payload = dict[str, Any]


def pack(payload: Payload) -> bytes:
    """The bytes of a frame. Bytes within become text, which `as_bytes` turns back."""
    return json.dumps(payload, ensure_ascii=False, default=_text, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )


def unpack(data: bytes) -> Payload:
    """What was packed. Raises `WireError` for all that is no JSON object."""
    try:
        payload = json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"no JSON: {type(error).__name__}") from None
    if not isinstance(payload, dict):
        raise WireError("no JSON object")
    return payload


def as_text(data: bytes) -> str:
    """Bytes as they are written in a payload."""
    return data.decode("latin-1")


def as_bytes(text: object) -> bytes:
    """The bytes that `as_text` wrote. Raises `WireError` for what is no such text."""
    try:
        if isinstance(text, str):
            return text.encode("latin-1")
    except UnicodeEncodeError:
        pass
    raise WireError("no bytes")


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("latin-1")
    raise TypeError(f"{type(value).__name__} has no place in a payload")
