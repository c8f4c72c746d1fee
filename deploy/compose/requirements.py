"""Prints the locked requirements without the tools of developers, hashes and all.

What those tools need in turn stays in: the lock does not say what is there for whom.
Standard library only, as it runs before anything is installed.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_BUILD: Final = {"editables", "hatchling"}
"""Named among the tools, but the two distributions are built with them."""


def without_tools(lock: str, project: str) -> str:
    """The entries of `lock` that `project`, a pyproject.toml, does not name as tools."""
    given = tomllib.loads(project)
    named = [*given["dependency-groups"]["dev"]]
    for extra in given["project"]["optional-dependencies"].values():
        named += extra
    tools = {_name(each) for each in named} - _BUILD
    entries = re.split(r"\n(?=\S)", lock.strip())
    return "\n".join([*(each for each in entries if _name(each) not in tools), ""])


def _name(requirement: str) -> str:
    found = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


if __name__ == "__main__":
    lock, project = (Path(each).read_text("utf-8") for each in sys.argv[1:])
    sys.stdout.write(without_tools(lock, project))
