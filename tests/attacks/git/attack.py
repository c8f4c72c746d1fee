"""What an attack is: a script that a program in a sandbox could run in its own workspace.

The same script is run in a plain clone beside it, on which plain git is then used as a host
would use it: that control shows that the attack is one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pytest

PRELUDE: Final = """
set -e
mkdir -p tools
printf "#!/bin/sh\\nexec sh -c '%s' canary \\"\\$@\\"\\n" "$CANARY" > tools/run
chmod +x tools/run
echo changed >> README.md
own() {  # A git directory that may be written.
    if ! git config attack.here 1 2> /dev/null; then
        rm -rf .git
        git init -q .
        git add -A
        git commit -qm Own
        git config attack.here 1
    fi
}
hooks() {
    mkdir -p "$1"
    for name in pre-commit post-commit commit-msg prepare-commit-msg reference-transaction \\
        post-index-change pre-push post-checkout pre-auto-gc post-merge update fsmonitor-watchman
    do
        rm -f "$1/$name"
        cp tools/run "$1/$name"
    done
}
repository() {  # One with a commit, at $1.
    git init -q "$1"
    echo one > "$1/file"
    git -C "$1" add -A
    git -C "$1" commit -qm One
}
sparse() { rm -f "$1"; truncate -s 8T "$1"; }
pipe() { rm -f "$1"; mkfifo "$1"; }
"""
"""What every script begins with. Each also finds, in its environment:

CANARY         a shell command that tells on whoever runs it outside of a sandbox
SECRETS, DROP  directories of the host: of files to steal, and where anybody may write
OTHER_OBJECTS, OTHER_COMMIT   an object store of another tenant, and a commit in it
DOOR           an http URL that asks for a password
FORGED         a text that nothing outside may take for a part of the history
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """A script, and what it does to plain git."""

    name: str
    covers: tuple[str, ...]
    """Ids of the cases it is: F of the 19 of the design study, A and B of the survey of peers."""
    script: str
    after: tuple[tuple[str, ...], ...] = ()
    """Commands of plain git that a host runs, beyond those that it always does."""
    worktree: bool = False
    """Whether plain git is tried on a linked worktree, with a shared git directory."""
    hits: bool = True
    """Whether plain git is hit; else it is broken at most."""
    refused: bool = False
    """Whether Cove may answer that nothing can be done with such a workspace."""
    long: bool = False

    @property
    def text(self) -> str:
        """The whole script, for `sh -c`."""
        return f"{PRELUDE}\n{self.script}\n"


def parameters(names: Iterable[str], always: Iterable[str]) -> list[object]:
    """Parameters of a test, of which those that are not in `always` belong to `make test-long`."""
    chosen = set(always)
    marks = {True: [], False: [pytest.mark.long]}
    return [pytest.param(name, id=name, marks=marks[name in chosen]) for name in names]
