"""The web console: the files of one folder, which are read once and served from memory."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.rest.errors import MethodNotAllowed, RouteNotFound
from gateway.rest.exchange import Exchange
from servicekit.config import ConfigError

ROOT: Final = "/console"
PREFIX: Final = f"{ROOT}/"

_INDEX: Final = "index.html"
_HASHED: Final = "assets/"  # What is in it has a digest of its content in its name.
_READING: Final = ("GET", "HEAD")
_KINDS: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_FOREVER: Final = "public, max-age=31536000, immutable"
_NEVER: Final = "no-store"
# Nothing but its own files and this gateway; styles are in files, too.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = (
    ("content-security-policy", _POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("vary", "accept-encoding"),
)


@dataclass(frozen=True, slots=True)
class _File:
    kind: str
    content: bytes
    packed: bytes


class Console:
    """Answers what is below `/console/`, to anybody: what it shows is asked for with a token.

    Only what was in the folder is there, by its exact path: no path leads out of it.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `ConfigError` when the folder holds no console."""
        try:
            self._files = {
                path.relative_to(folder).as_posix(): _read(path)
                for path in sorted(folder.rglob("*"))
                if path.suffix in _KINDS and path.is_file()
            }
        except OSError as error:
            raise ConfigError(f"COVE_GATEWAY__CONSOLE: {error}") from None
        if _INDEX not in self._files:
            raise ConfigError(f"COVE_GATEWAY__CONSOLE: no {_INDEX} in {folder}; `make console`")

    @staticmethod
    def owns(path: str) -> bool:
        return path == ROOT or path.startswith(PREFIX)

    async def answer(self, exchange: Exchange) -> None:
        """Raises `RouteNotFound` and `MethodNotAllowed`."""
        if exchange.method not in _READING:
            raise MethodNotAllowed(exchange.path, _READING)
        if exchange.path == ROOT:
            # Relative: in front of it there may be a proxy with paths of its own.
            await exchange.begin(308, [("location", "console/"), ("content-length", "0")])
            await exchange.end()
            return
        name = exchange.path.removeprefix(PREFIX) or _INDEX
        file = self._files.get(name)
        if file is None:
            raise RouteNotFound("no such file of the console", path=exchange.path)
        headers = [("content-type", file.kind), *_HEADERS]
        content = file.content
        if _takes_gzip(exchange.headers.get("accept-encoding", "")):
            content = file.packed
            headers.append(("content-encoding", "gzip"))
        headers.append(("content-length", str(len(content))))
        kept = _FOREVER if name.startswith(_HASHED) else _NEVER
        await exchange.begin(200, headers, kept)
        await exchange.end(content)


def _read(path: Path) -> _File:
    content = path.read_bytes()
    return _File(_KINDS[path.suffix], content, gzip.compress(content, mtime=0))


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip().lower() == "gzip":
            return parameters.replace(" ", "").lower() not in ("q=0", "q=0.0")
    return False
