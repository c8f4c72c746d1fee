"""An agent that fixes a failing test: three attempts at once, each in a workspace of its own.

    cove up &
    python examples/fix_failing_test.py [REPOSITORY [TEST-COMMAND]]

The tests decide, then the smallest diff; the best attempt is committed and pushed to a branch, of
the others nothing stays. Without a repository a small one is made, whose test fails.

`model` stands in for a language model: it is a script, which knows how to mend that small
repository. Replace it with a call of yours, which is told a strategy and what the tests said.
"""

import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cove import DiffEnd
from cove.sync import Client, Workspace

SAMPLE = {
    "stats.py": "def mean(values):\n    return sum(values) / len(values) + 1\n",
    "test_stats.py": """\
import unittest
from stats import mean

class MeanTest(unittest.TestCase):
    def test_of_some(self):
        self.assertEqual(mean([1, 2, 3]), 2)

    def test_of_none_is_zero(self):
        self.assertEqual(mean([]), 0)
""",
    ".gitignore": "__pycache__/\n",
}
STRATEGIES = ("first idea", "rewrite", "smallest change")
TURNS = 2


def model(strategy: str, said: str, read: Callable[[str], str]) -> dict[str, str]:
    """Stands in for a language model, which may read files: those to write, by path."""
    code = read("stats.py")
    match strategy:
        case "first idea":  # Forgets the empty list.
            return {"stats.py": code.replace(" + 1", "")}
        case "rewrite":
            body = "    total = 0\n    for each in values:\n        total += each\n"
            return {
                "stats.py": f"def mean(values):\n    if not values:\n        return 0\n{body}"
                "    return total / len(values)\n"
            }
        case _:
            return {"stats.py": code.replace("len(values) + 1", "max(len(values), 1)")}


@dataclass
class Attempt:
    strategy: str
    workspace: Workspace
    passed: bool
    added: int
    deleted: int
    branch: str = ""


def attempt(workspace: Workspace, strategy: str, test: str) -> Attempt:
    """Run the tests and let the model edit, until they pass or it had its turns."""
    for turn in range(TURNS + 1):
        tests = workspace.execute(script=test, timeout=300, merge_stderr=True)
        if tests.exit_status == 0 or turn == TURNS:
            break
        for path, content in model(strategy, tests.text, workspace.read_text).items():
            workspace.write(path, content)
    (end,) = (part for part in workspace.diff("base..work") if isinstance(part, DiffEnd))
    return Attempt(strategy, workspace, tests.exit_status == 0, end.additions, end.deletions)


def make_sample() -> Path:
    """A repository whose test fails."""
    folder = Path(tempfile.mkdtemp(prefix="failing-"))
    for name, content in SAMPLE.items():
        (folder / name).write_text(content)
    author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for command in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "Add mean")):
        subprocess.run(("git", *command), cwd=folder, check=True)
    return folder


def main() -> int:
    repository = sys.argv[1] if len(sys.argv) > 1 else str(make_sample())
    test = sys.argv[2] if len(sys.argv) > 2 else "python3 -m unittest"
    source = Path(repository) if Path(repository).exists() else repository
    run = secrets.token_hex(3)
    with Client() as cove, ExitStack() as left, ThreadPoolExecutor() as pool:

        def begin(strategy: str) -> Attempt:
            name = f"fix-{run}-{strategy.replace(' ', '-')}"
            workspace = cove.workspaces.create(source, id=name)
            left.callback(workspace.delete, force=True)
            return attempt(workspace, strategy, test)

        attempts = list(pool.map(begin, STRATEGIES))
        passed = [each for each in attempts if each.passed]
        if passed:
            best = min(passed, key=lambda each: each.added + each.deleted)
            best.workspace.commit(
                f"Fix the tests: {best.strategy}", author=("Agent", "agent@example.org")
            )
            best.branch = best.workspace.push().remote_branch
    print(f"repository {repository}")
    print(f"{'strategy':<16} {'tests':<7} {'diff':<8} pushed")
    for each in attempts:
        tests, diff = "pass" if each.passed else "fail", f"+{each.added} -{each.deleted}"
        print(f"{each.strategy:<16} {tests:<7} {diff:<8} {each.branch or '-'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
