"""Refuse a change of protos/ that breaks callers of what main holds.

buf wants both sides as whole workspaces, so main's protos are laid under .build/
with the same third-party modules beside them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
BASE: Final = ROOT / ".build" / "main"


def main() -> int:
    revision = _base()
    shutil.rmtree(BASE, ignore_errors=True)
    BASE.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", revision, "--", "buf.yaml", "protos"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    subprocess.run(["tar", "-x", "-C", str(BASE)], input=archive.stdout, check=True)
    shutil.copytree(ROOT / ".build" / "protos", BASE / ".build" / "protos")
    print(f"comparing protos/ with {revision}")
    buf = Path(sys.executable).parent / "buf"
    return subprocess.run([str(buf), "breaking", "--against", str(BASE)], cwd=ROOT).returncode


def _base() -> str:
    """The commit that callers have: named by COVE_BREAKING_BASE, else main's."""
    candidates = [os.environ.get("COVE_BREAKING_BASE", ""), "origin/main", "main", "HEAD"]
    for name in filter(None, candidates):
        found = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"],
            cwd=ROOT,
            capture_output=True,
        )
        if found.returncode == 0:
            return name
    raise SystemExit("no revision to compare with: is this a git checkout?")


if __name__ == "__main__":
    sys.exit(main())
