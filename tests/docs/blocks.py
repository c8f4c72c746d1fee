"""Runs the Python blocks of a page of documentation, in order, as one session.

What is below a comment is not run here: `<!-- snippet: path -->` says that it is cut from a file
which another test runs. A `text` block right after one is what it prints. Usage: `blocks.py PAGE`,
which is read from the standard input, so that its caller may change it; PAGE is its name in
tracebacks.
"""

import io
import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Final

_BLOCK: Final = re.compile(
    r"(?<!-->\n)^```python\n(?P<code>.*?)^```$(?:\n+^```text\n(?P<output>.*?)^```$)?", re.M | re.S
)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of Python."""

    line: int
    """Of its first line in the page."""
    code: str
    output: str | None
    """What it prints, where the page says it."""


def blocks(page: str) -> list[Block]:
    """The Python blocks of a page."""
    return [
        Block(page.count("\n", 0, found.start()) + 2, found["code"], found["output"])
        for found in _BLOCK.finditer(page)
    ]


def run(page: str, name: str) -> None:
    """Run them. Raises what a block raises, or `AssertionError` when it prints another text."""
    session = {"__name__": "__main__"}
    for block in blocks(page):
        code = compile("\n" * (block.line - 1) + block.code, name, "exec")
        with redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as printed:
            exec(code, session)
        printed.seek(0)
        found = printed.read()
        if block.output is not None and found != block.output:
            raise AssertionError(f"{name}:{block.line} printed:\n{found}")


if __name__ == "__main__":
    run(sys.stdin.read(), sys.argv[1])
