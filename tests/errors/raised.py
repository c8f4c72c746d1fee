"""Where the code makes failures, read and not run: with which reason and metadata."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from cove.errors.v1.errors_pb2 import ErrorReason
from scripts.reasons import PREFIX, ROOT
from servicekit import errors

PARTS: Final = ("gateway", "services", "servicekit")
_NOT_METADATA: Final = frozenset(
    {"remedy", "retry_after", "violations", "preconditions", "quotas", "message"}
)


@dataclass(frozen=True, slots=True)
class Raised:
    """One place where a failure is made."""

    place: str
    reason: str
    keys: frozenset[str]
    """Of its metadata."""
    more: bool = False
    """Whether it is given metadata of another failure, too."""


def raised() -> Iterator[Raised]:
    """Every place. Of a class with a constructor of its own that is the place."""
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*.py")):
            if path.name != "__main__.py":
                yield from _in_module(path)


def _in_module(path: Path) -> Iterator[Raised]:
    relative = path.relative_to(ROOT)
    name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        place = f"{relative}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ClassDef):
            kind: Any = getattr(module, node.name, None)
            if kind and _is_kind(kind) and kind.__module__ == name and "__init__" in vars(kind):
                yield Raised(place, _reason(kind), _own_keys(node))
        elif isinstance(node, ast.Call):
            kind = _called(module, node.func)
            if _is_kind(kind) and _makes_as_it_is_told(kind):
                more = any(each.arg is None for each in node.keywords)
                yield Raised(place, _reason(kind), _keys(node), more)


def _is_kind(kind: Any) -> bool:
    return (
        inspect.isclass(kind)
        and issubclass(kind, errors.ServiceError)
        and kind.__module__ != errors.__name__
    ) or (inspect.isclass(kind) and kind in _BARE)


_BARE: Final = tuple(
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind)
    and issubclass(kind, errors.ServiceError)
    and kind is not errors.ServiceError
)
"""The kinds themselves, which are raised where a reason of all fits."""


def _makes_as_it_is_told(kind: type) -> bool:
    made = next(each for each in kind.__mro__ if "__init__" in vars(each))
    return made.__module__ == errors.__name__


def _called(module: ModuleType, function: ast.expr) -> Any:
    """What a name, or one with dots, stands for in a module."""
    parts = ast.unparse(function).split(".")
    found: Any = module
    for part in parts:
        found = getattr(found, part, None)
    return found


def _reason(kind: type[errors.ServiceError]) -> str:
    return ErrorReason.Name(kind.reason).removeprefix(PREFIX)


def _keys(call: ast.Call) -> frozenset[str]:
    return frozenset(each.arg for each in call.keywords if each.arg) - _NOT_METADATA


def _own_keys(kind: ast.ClassDef) -> frozenset[str]:
    """What a constructor gives to the one above it, and writes into `metadata` itself."""
    keys: set[str] = set()
    for node in ast.walk(kind):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
            keys |= _keys(node)
        elif isinstance(node, ast.Dict):
            keys |= {str(each.value) for each in node.keys if isinstance(each, ast.Constant)}
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "self.metadata":
            assert isinstance(node.slice, ast.Constant)
            keys.add(str(node.slice.value))
    return frozenset(keys)
