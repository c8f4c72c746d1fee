"""Write into README.md what it shows of the examples, cut from the files that `make interop` runs.

A line `<!-- snippet: PATH -->` is above each fence; of the file it shows what is between the lines
that hold `snippet:begin` and `snippet:end`. `--check` writes nothing, and fails where they differ.
"""

import re
import sys
import textwrap
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
README: Final = ROOT / "README.md"
MOST: Final = 14
"""Lines of a snippet."""

_SHOWN: Final = re.compile(
    r"<!-- snippet: (?P<path>\S+) -->\n```(?P<language>\w+)\n.*?^```$", re.M | re.S
)
_BEGIN, _END = "snippet:begin", "snippet:end"


class BadSnippet(Exception):
    """A file without the marks, or with more between them than a reader should see."""


def main() -> int:
    page = README.read_text()
    new = with_snippets(page)
    if "--check" in sys.argv[1:]:
        if new != page:
            print("README.md: not what the examples are; run scripts/snippets.py")
        return int(new != page)
    README.write_text(new)
    return 0


def paths(page: str) -> list[str]:
    """Of the files that a page shows, in order."""
    return [found["path"] for found in _SHOWN.finditer(page)]


def with_snippets(page: str) -> str:
    """The page, with each snippet as its file has it. Raises `BadSnippet`."""

    def shown(found: re.Match[str]) -> str:
        text = snippet((ROOT / found["path"]).read_text(), found["path"])
        return f"<!-- snippet: {found['path']} -->\n```{found['language']}\n{text}```"

    return _SHOWN.sub(shown, page)


def snippet(text: str, name: str) -> str:
    """What of a file is between the marks. Raises `BadSnippet`."""
    lines = text.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if _BEGIN in line]
    ends = [number for number, line in enumerate(lines) if _END in line]
    if len(begins) != 1 or len(ends) != 1 or begins[0] >= ends[0]:
        raise BadSnippet(f"{name}: one line with {_BEGIN}, and one with {_END} below it")
    within = lines[begins[0] + 1 : ends[0]]
    if len(within) > MOST:
        raise BadSnippet(f"{name}: {len(within)} lines between the marks; the most is {MOST}")
    return textwrap.dedent("".join(within).expandtabs(4))


if __name__ == "__main__":
    sys.exit(main())
