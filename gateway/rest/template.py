"""Path templates of `google.api.http`, matched against a path as it came: percent-encoded."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

# A segment holds no colon, as ids have none and a verb begins with one, and no
# encoded slash, which would be another segment once it is decoded.
_SEGMENT: Final = r"(?:[^/:%]|%(?!2[Ff])[0-9A-Fa-f]{2})+"
VARIABLE: Final = re.compile(r"\{(?P<field>[a-z_][a-z0-9_.]*)(?:=(?P<segments>[^{}]+))?\}")
_VERB: Final = re.compile(r"(?P<path>.*?)(?::(?P<verb>[a-z]+))?", re.DOTALL)


class Template:
    """For example `/{name=workspaces/*}:undelete`, or `/{name=workspaces/*}/files/{path=**}`."""

    def __init__(self, text: str) -> None:
        """Raises `ValueError` if it is no template, or one of a form that is not known here."""
        found = _VERB.fullmatch(text)
        if not found or not text.startswith("/"):
            raise ValueError(f"not a path template: {text}")
        self.text = text
        self.verb: str = found["verb"] or ""
        self.without_verb: str = found["path"]
        self.fields: tuple[str, ...] = tuple(
            variable["field"] for variable in VARIABLE.finditer(self.without_verb)
        )
        self._pattern = re.compile(_compiled(self.without_verb, self.verb), re.DOTALL)

    @property
    def rank(self) -> tuple[bool, int]:
        """Templates are tried in this order: what says more comes first."""
        return "**" in self.text, self.text.count("*")

    def match(self, path: str) -> Mapping[str, bytes] | None:
        """The decoded value of each field, or None. `path` is ASCII, percent-encoded."""
        found = self._pattern.fullmatch(path)
        if not found:
            return None
        values = found.groups(default="")
        return {
            field: unquote_to_bytes(value) for field, value in zip(self.fields, values, strict=True)
        }


def _compiled(path: str, verb: str) -> str:
    pattern, end = "", 0
    for variable in VARIABLE.finditer(path):
        literal, segments = path[end : variable.start()], variable["segments"] or "*"
        end = variable.end()
        if segments == "**":  # Any number of segments, also none: then without the slash.
            pattern += f"{_literal(literal.removesuffix('/'))}(?:/(.*))?"
        else:
            pattern += f"{_literal(literal)}({'/'.join(map(_segment, segments.split('/')))})"
    pattern += _literal(path[end:])
    return f"{pattern}:{verb}" if verb else pattern


def _segment(text: str) -> str:
    return _SEGMENT if text == "*" else _literal(text)


def _literal(text: str) -> str:
    if re.search(r"[*{}]", text):
        raise ValueError(f"not supported in a path template: {text}")
    return re.escape(text)
