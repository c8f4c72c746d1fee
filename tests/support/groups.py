"""Which control groups the launchers of this run leave: a machine that tests run on fills up."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agent.launcher.cgroups import group_name, places, remove_empty

_FLAG: Final = "--runtime"
_VARIABLE: Final = "COVE_RUNTIME"


class Launchers:
    """Those that this process starts, itself or by `cove up`, known by their runtime directory."""

    def __init__(self) -> None:
        self._tests: dict[Path, str] = {}
        """In which test each directory was first used."""

    def listen(self) -> None:
        """Hear of each start from now on, as long as this process lives."""
        sys.addaudithook(self._hear)

    def left(self) -> list[str]:
        """What is left of them, each with the test that it is of. Removes what has no process."""
        found = []
        for runtime, test in self._tests.items():
            groups = [each for each in places(group_name(runtime)) if each.exists()]
            for each in groups:
                remove_empty(each)
            if groups:
                busy = [str(each) for each in groups if each.exists()]
                found.append(f"{test}: {runtime}: {len(groups)} groups, with processes {busy}")
        return found

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            _, argv, _, env = arguments
            for runtime in _runtimes(argv, env):
                test = os.environ.get("PYTEST_CURRENT_TEST", "")
                self._tests.setdefault(Path(runtime), test)


def _runtimes(argv: Sequence[Any], env: Mapping[str, str] | None) -> Iterator[str]:
    words = [os.fsdecode(each) for each in argv]
    if _FLAG in words[:-1]:
        yield words[words.index(_FLAG) + 1]
    if env and _VARIABLE in env:
        yield env[_VARIABLE]
