"""Copies of the agent, as sandboxes and containers load it: compiled, and for any user to read."""

import hashlib
import py_compile
import shutil
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).parent
_PARTS: Final = ("__init__.py", "drafts.py", "frames.py", "formats.py", "removal.py", "inside")


def digest() -> "hashlib._Hash":
    """Of all our programs; the caller adds what else tells one copy from another."""
    found = hashlib.sha256()
    for path in sorted(_SOURCE.rglob("*.py")):
        found.update(path.read_bytes())
    return found


def copy_agent(folder: Path) -> None:
    """Make `folder` with the package `agent`, as much as runs inside, in it."""
    for name in _PARTS:
        for path in sorted((_SOURCE / name).glob("*.py")) or [_SOURCE / name]:
            copy = folder / "agent" / path.relative_to(_SOURCE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            compile_for(copy, f"/.cove/lib/agent/{path.relative_to(_SOURCE)}")


def compile_for(path: Path, shown: str) -> None:
    """Compile a module whose time of change may be anything; `shown` is its name inside."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(path), dfile=shown, invalidation_mode=mode)


def open_to_all(folder: Path) -> None:
    """Let every user read all of it."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def finished(making: Path, target: Path) -> Path:
    """`target`, which is what was made, or what somebody quicker made."""
    try:
        making.rename(target)
    except OSError:
        shutil.rmtree(making)
    return target
