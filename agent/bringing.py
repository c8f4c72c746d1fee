"""What an agent needs in a container whose image knows nothing of it: an interpreter that works on
any root file system of this kind of machine, and its own modules.

The Python of this process is taken apart: its program, the loader and libraries that it uses, and
the modules that the agent loads. Nothing of the image is used, and nothing else of this host.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from agent import installing
from agent.launcher import seccomp

INSIDE: Final = "/.cove/lib"
"""Where the copy is to be bound."""
_STDLIB: Final = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
_LISTING: Final = """
import os, sys
sys.path.insert(0, sys.argv[1])
for name in sorted(os.listdir(f"{sys.argv[1]}/agent/inside")):
    if name.endswith(".py"):
        __import__(f"agent.inside.{name[:-3]}")
import fcntl
for module in list(sys.modules.values()):
    print(getattr(module, "__file__", None) or "")
for line in open("/proc/self/maps"):
    print(line.split()[-1] if ".so" in line else "")
"""
_NEEDED: Final = re.compile(r"^\s*([^\s/]+) => (/\S+)", re.MULTILINE)
_TIMEOUT: Final = 60


class CannotBring(Exception):
    """This interpreter does not work elsewhere; the message says why."""


def bring(folder: Path) -> Path:
    """Make a copy below `folder`, unless there is one of this content; returns it.

    Raises CannotBring.
    """
    program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    found = installing.digest()
    found.update(f"{sys.version} {program} {program.stat().st_mtime_ns}".encode())
    target = folder / found.hexdigest()[:16]
    if target.is_dir():
        return target
    making = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(making, ignore_errors=True)  # Of one that was killed, and had our pid.
    try:
        installing.copy_agent(making)
        (making / "seccomp").write_bytes(seccomp.program())
        programs = _copy_python(making, program)
    except (OSError, subprocess.SubprocessError, KeyError) as error:
        shutil.rmtree(making, ignore_errors=True)
        raise CannotBring(f"the Python of this service cannot be copied: {error}") from error
    installing.open_to_all(making)
    for each in programs:
        each.chmod(0o755)
    return installing.finished(making, target)


def argv(*arguments: str, module: str = "entrance") -> list[str]:
    """Of an agent that comes in through its door; the arguments are those of `agent.inside.main`,
    after the version of Python. Or of another `module` of `agent.inside`."""
    program, version = f"{INSIDE}/python/bin/python", ".".join(map(str, sys.version_info[:3]))
    bootstrap = (
        f"import sys; sys.path.insert(0, '{INSIDE}'); "
        f"from agent.inside.{module} import main; sys.exit(main())"
    )
    loader = [f"{INSIDE}/python/loader", "--library-path", f"{INSIDE}/python/shared"]
    flags = ["--argv0", program, program, "-I", "-S", "-E", "-c", bootstrap]
    return [*loader, *flags, version, *arguments]


def _copy_python(making: Path, program: Path) -> list[Path]:
    """Into `python` below `making`; returns what is executable."""
    used = [line for line in _listing(program, making) if line.startswith("/")]
    loader = next((each for each in used if re.match(r"ld[-.]", Path(each).name)), "")
    if not loader:
        raise OSError("its program has no loader, as far as can be seen")
    python = making / "python"
    for name in ("bin", "shared", f"{_STDLIB}/encodings"):
        (python / name).mkdir(parents=True)
    shutil.copyfile(loader, python / "loader")
    shutil.copyfile(program, python / "bin/python")
    extensions = []
    for each in sorted({Path(each) for each in used}):
        if each.is_relative_to(making):
            continue
        if each.suffix == ".py":
            _copy_module(each, python)
        elif "lib-dynload" in each.parts:
            extensions.append(each)
            (python / _STDLIB / "lib-dynload").mkdir(exist_ok=True)
            shutil.copyfile(each, python / _STDLIB / "lib-dynload" / each.name)
    for name, path in _libraries(loader, [program, *extensions]).items():
        shutil.copyfile(path, python / "shared" / name)
    return [python / "loader", python / "bin/python"]


def _listing(program: Path, making: Path) -> list[str]:
    """Files that an agent has loaded, once it has loaded all that it ever does."""
    done = subprocess.run(
        [program, "-I", "-S", "-c", _LISTING, making],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env={},
    )
    if done.returncode:
        raise OSError(done.stderr[-500:])
    return done.stdout.splitlines()


def _copy_module(path: Path, python: Path) -> None:
    parts = path.parts
    below = Path(*parts[len(parts) - parts[::-1].index(Path(_STDLIB).name) :])
    copy = python / _STDLIB / below
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)
    installing.compile_for(copy, f"{INSIDE}/python/{_STDLIB}/{below}")


def _libraries(loader: str, programs: list[Path]) -> dict[str, str]:
    """Path of each shared library by the name it is asked for by, as the loader itself tells."""
    found: dict[str, str] = {}
    for each in programs:
        told = subprocess.run(
            [loader, "--list", each], capture_output=True, text=True, timeout=_TIMEOUT, env={}
        )
        if told.returncode:
            raise OSError(f"{each}: {(told.stdout + told.stderr).strip()[-300:]}")
        found |= dict(_NEEDED.findall(told.stdout))
    return found
