"""The program of warm cells: our modules for it in one file of memory, and the interpreter.

The modules are given to each cell as they are when the service starts, compiled, so that no user
of a cell needs a way to where this is installed.
"""

import importlib.util
import io
import marshal
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

from agent import drafts, writeback
from agent.launcher.host import Interpreter, find_interpreter
from services.git.errors import CellUnavailable

_MODULES: Final = "/.cove.modules"
_PYTHON: Final = Path("/.cove.python")
_UNCHECKED: Final = 1
_BOOT: Final = (
    f"import sys;sys.path.insert(0,'{_MODULES}');from services.git.within.main import main;main()"
)


@cache
def interpreter() -> Interpreter:
    """The Python of this process. Raises `CellUnavailable` when it is not of one piece."""
    try:
        return find_interpreter()
    except RuntimeError as error:
        raise CellUnavailable(
            "there is no Python for cells", cause=str(error), remedy="Use another Python."
        ) from None


def view(seen: str, modules: int) -> list[str]:
    """What bubblewrap is told for it to be there: the prefix is at `seen`.

    All are mounted in the root of the cell, so that nobody there can move them away.
    """
    argv = ["--ro-bind-data", str(modules), _MODULES]
    if interpreter().bound:
        argv += ["--ro-bind", seen, str(_PYTHON)]
        argv += ["--setenv", "LD_LIBRARY_PATH", str(_PYTHON / "lib")]
    return argv


def command(control: int, memory: int) -> list[str]:
    """The command line of the agent."""
    found = interpreter()
    program = found.program
    if found.bound:
        program = _PYTHON / program.relative_to(found.inside)
    return [str(program), "-I", "-S", "-E", "-c", _BOOT, str(control), str(memory)]


@cache
def modules() -> bytes:
    """An archive from which the agent imports."""
    folder = Path(__file__).parent / "within"
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for package in ("agent", "services", "services/git"):
            archive.writestr(f"{package}/__init__.pyc", _compiled("", package))
        for module in (drafts, writeback):
            path = Path(module.__file__ or "")
            archive.writestr(
                f"agent/{path.stem}.pyc", _compiled(path.read_text("utf-8"), path.name)
            )
        for path in sorted(folder.glob("*.py")):
            name = f"services/git/within/{path.stem}.pyc"
            archive.writestr(name, _compiled(path.read_text("utf-8"), f"within/{path.name}"))
    return made.getvalue()


def _compiled(source: str, name: str) -> bytes:
    code = compile(source, name, "exec", dont_inherit=True)
    flags = _UNCHECKED.to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + flags + bytes(8) + marshal.dumps(code)
