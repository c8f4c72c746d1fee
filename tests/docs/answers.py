"""Whether what came back is what the page says: `...` stands for what differs each time."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

_ANY: Final = "..."


def answers(shown: str, came: str, *, as_json: bool) -> bool:
    """Whether a reader who got `came` would say that the page is right."""
    if not as_json:
        return bool(_pattern(shown).fullmatch(_lines(came)))
    try:
        got = list(_values(came))
    except ValueError:
        return False
    return _all_like(list(_values(shown)), got)


def _pattern(shown: str) -> re.Pattern[str]:
    """A line that is `...` is any number of lines, elsewhere it is a part of one line."""
    pattern = ""
    for line in _lines(shown).splitlines(keepends=True):
        if line.strip() == _ANY:
            pattern += r"(?:.*\n)*"
        else:
            pattern += ".+".join(map(re.escape, line.split(_ANY)))
    return re.compile(pattern)


def _lines(text: str) -> str:
    """Without what nobody sees: spaces at the end of lines, empty lines at the end."""
    lines = [line.rstrip() for line in text.rstrip().splitlines()]
    return "".join(f"{line}\n" for line in lines)


def _values(text: str) -> Iterator[Any]:
    """The JSON values that stand one after the other. Raises `ValueError`."""
    decoder = json.JSONDecoder()
    text = text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:].lstrip()


def _like(shown: Any, got: Any) -> bool:
    if isinstance(shown, str):
        if shown == _ANY:
            return True
        pattern = ".+".join(map(re.escape, shown.split(_ANY)))
        return isinstance(got, str) and bool(re.fullmatch(pattern, got, re.DOTALL))
    if isinstance(shown, dict) and isinstance(got, dict):
        wanted = {key: value for key, value in shown.items() if key != _ANY}
        known = wanted.keys() == got.keys() or (_ANY in shown and wanted.keys() <= got.keys())
        return known and all(_like(value, got[key]) for key, value in wanted.items())
    if isinstance(shown, list) and isinstance(got, list):
        return _all_like(shown, got)
    return type(shown) is type(got) and bool(shown == got)


def _all_like(shown: list[Any], got: list[Any]) -> bool:
    """In order; `"..."` at the end is whatever else there is, also nothing."""
    if shown and shown[-1] == _ANY:
        shown = shown[:-1]
        got = got[: len(shown)]
    return len(shown) == len(got) and all(map(_like, shown, got))
