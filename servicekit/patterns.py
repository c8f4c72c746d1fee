"""Says in words what a pattern of the protos asks for: who wrote the value reads no expressions."""

from typing import Final

_ID: Final = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_UID: Final = "[a-z2-7]{16}"
_ID_WORDS: Final = "1 to 63 lower-case letters, digits and hyphens, with no hyphen first or last"
_UID_WORDS: Final = "16 lower-case letters and digits from 2 to 7"

_WORDS: Final = {
    "[!-~]*": "printable ASCII characters, without spaces",
    r"[^\x00]*": "text without NUL",
    "[^\x00]*": "text without NUL",
    r"[^\s\x00]*": "text without white space and NUL",
    r"[^\x00-\x1f]*": "text without control characters",
    r"[^\x00-\x1f<>]*": "text without control characters, `<` and `>`",
    r"[^\x00-\x20<>]*": "text without spaces, control characters, `<` and `>`",
    "[0-9a-f]{40}": "40 hexadecimal digits in lower case",
    "([0-9a-f]{40})?": "40 hexadecimal digits in lower case, or empty",
    "[0-9a-f]{64}": "64 hexadecimal digits in lower case",
    "[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?": (
        "1 to 128 letters, digits, `.`, `_`, `/` and `-`, with a letter or digit first and last"
    ),
    "[A-Za-z0-9-]{1,100}": "1 to 100 letters, digits and hyphens",
    "[A-Za-z_][A-Za-z0-9_]{0,254}": "1 to 255 letters, digits and underscores, with no digit first",
    "[a-z][a-z0-9_]{0,62}": (
        "1 to 63 lower-case letters, digits and underscores, with a letter first"
    ),
    "[a-z_]{1,32}": "1 to 32 lower-case letters and underscores",
    "(blob:none|blob:limit=[0-9]{1,12}[kmg]?)?": (
        "`blob:none`, or `blob:limit=` and a number of bytes, of which `k`, `m` or `g` makes more"
    ),
    _ID: _ID_WORDS,
    _UID: _UID_WORDS,
}


def words(pattern: str) -> str | None:
    """What has to be there, after "must be"; None for a pattern that is not known here."""
    inner = pattern.removeprefix("^").removesuffix("$")
    if found := _WORDS.get(inner):
        return found
    form = inner.replace(_ID, "<id>").replace(_UID, "<uid>")
    if form == inner or set(form) & set("[]{}*+^$\\|"):
        return None
    told = [f"`{form.replace('(', '[').replace(')?', ']')}`"]
    told += [f"an id is {_ID_WORDS}"] * ("<id>" in form)
    told += [f"a uid is {_UID_WORDS}"] * ("<uid>" in form)
    return "; ".join(told)
