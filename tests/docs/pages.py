"""What a page tells its reader to type, and what it says comes back.

A fence `sh` or `console` is run. A fence `text` or `json` right after one is what comes back; in
`console` it stands below each `$ `. A fence below `<!-- not run: why -->` is not run. `python`, and
what it prints, is test_python_blocks' to run; what is cut from examples, below
`<!-- snippet: path -->`, is tests/interop's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE: Final = re.compile(r"(?P<indent> *)```(?P<language>[^`]*)")
_NOT_RUN: Final = re.compile(r"<!-- not run: (?P<why>.+) -->")
_ANSWERS: Final = ("text", "json")
_SHOWN: Final = (
    "cpp",
    "go",
    "ini",
    "java",
    "proto",
    "python",
    "rust",
    "toml",
    "typescript",
    "yaml",
)


class BadPage(Exception):
    """A fence of which nobody can tell whether it is to be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to type."""

    text: str
    line: int

    answer: str | None = None
    """What the page says comes back; None: it does not say."""

    json: bool = False
    """The answer is JSON, to be compared as such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRun:
    """A fence that is not run, and why."""

    line: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fence:
    language: str
    text: str
    line: int
    why: str
    follows: bool
    """Nothing but empty lines is between it and the fence before."""


def steps(page: Path) -> list[Step]:
    """In order. Raises `BadPage`."""
    found: list[Step] = []
    before = ""
    for fence in _fences(page):
        printed = fence.follows and before == "python" and fence.language in _ANSWERS
        before = fence.language
        if fence.why or printed or fence.language in _SHOWN:
            continue
        if fence.language == "console":
            found += _typed(fence)
        elif fence.language == "sh":
            found.append(Step(text=fence.text, line=fence.line))
        elif fence.language not in _ANSWERS:
            raise BadPage(f"line {fence.line}: say what `{fence.language}` is; see {__name__}")
        elif not (fence.follows and found and found[-1].answer is None):
            raise BadPage(f"line {fence.line}: an answer, but to what?")
        else:
            found[-1] = replace(found[-1], answer=fence.text, json=fence.language == "json")
    return found


def not_run(page: Path) -> list[NotRun]:
    """What a reader is shown and nobody has tried here."""
    return [NotRun(line=fence.line, why=fence.why) for fence in _fences(page) if fence.why]


def _typed(fence: _Fence) -> Iterator[Step]:
    command, line, answer = "", 0, ""
    for number, text in enumerate(fence.text.splitlines(keepends=True), fence.line + 1):
        if not text.startswith("$ "):
            answer += text
            continue
        if command:
            yield Step(text=command, line=line, answer=answer)
        command, line, answer = text.removeprefix("$ "), number, ""
    if not command:
        raise BadPage(f"line {fence.line}: no line begins with `$ `")
    yield Step(text=command, line=line, answer=answer)


def _fences(page: Path) -> Iterator[_Fence]:
    lines = enumerate(page.read_text().splitlines(), 1)
    before, why, follows = "", "", False
    for number, line in lines:
        opened = _FENCE.fullmatch(line)
        if not opened:
            follows = follows and not line.strip()
            before = line if line.strip() else before
            continue
        body = []
        for _, inner in lines:
            if inner.strip() == "```":
                break
            body.append(inner.removeprefix(opened["indent"]) + "\n")
        else:
            raise BadPage(f"line {number}: never ends")
        reason = _NOT_RUN.fullmatch(before.strip())
        why = reason["why"] if reason else ""
        yield _Fence(
            language=opened["language"].strip(),
            text="".join(body),
            line=number,
            why=why,
            follows=follows,
        )
        before, follows = "", not why
