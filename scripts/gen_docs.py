"""Write docs/errors.md, docs/configuration.md and the table of docs/drivers.md.

What is known of reasons is what scripts/reasons.py finds; the
settings are the fields of every `Config` and the docstrings below them; what drivers can is
what they say.
`--check` writes nothing and fails when a page is not up to date.
"""

import ast
import importlib
import inspect
import re
import sys
import textwrap
import types
from dataclasses import MISSING, Field, fields
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from scripts.driver_table import table
from scripts.reasons import reasons
from servicekit.config import ByteSize, ServerConfig, required, variable

ROOT: Final = Path(__file__).parent.parent
ERRORS: Final = ROOT / "docs" / "errors.md"
CONFIGURATION: Final = ROOT / "docs" / "configuration.md"
DRIVERS: Final = ROOT / "docs" / "drivers.md"

SERVICES: Final = (
    "services.registry",
    "services.git",
    "services.provider",
    "services.executor",
    "gateway",
)
_SECTIONS: Final = {
    0: "Any service",
    1: "State of environments (registry)",
    2: "Workspaces (gateway)",
    3: "Repositories and worktrees (git)",
    4: "What an environment stands on (provider)",
    5: "Commands and files (executor)",
}
_ERRORS_TABLE: Final = """\
| reason | code, HTTP | when | metadata | what to do | again? |
|---|---|---|---|---|---|
"""

_ERRORS_HEAD: Final = """\
# Failures

<!-- Written by scripts/gen_docs.py from errors.proto, servicekit/remedies.py and the code. -->

Every failure is a gRPC status with details of `google.rpc` (over HTTP the same as JSON, word for
word):

- `ErrorInfo`: `reason` is `ERROR_REASON_` and one of the names below, `domain` is `cove`,
  `metadata` holds what varies. Branch on the reason, never on the message.
- `LocalizedMessage`: what to do about it, for a person or a model.
- `BadRequest`: which fields are wrong; with every INVALID_ARGUMENT.
- `PreconditionFailure`, `QuotaFailure`: what forbids it; the latter with every quota and rate.
- `RetryInfo`: the same call may succeed after that time; with every UNAVAILABLE. Over HTTP
  `Retry-After`, too.

| code | HTTP |
|---|---|
| INVALID_ARGUMENT, OUT_OF_RANGE | 400; 416 where a `Range` begins beyond the end of a file |
| UNAUTHENTICATED | 401, with `WWW-Authenticate` |
| PERMISSION_DENIED | 403 |
| NOT_FOUND | 404; 405 with `Allow` for a wrong method, 426 where a WebSocket is needed |
| ALREADY_EXISTS, FAILED_PRECONDITION | 409 |
| ABORTED | 409; with `If-Match`, where that is what was lost, 412 |
| RESOURCE_EXHAUSTED | 429, with `Retry-After`; 413 where something is too large |
| INTERNAL | 500 |
| UNAVAILABLE | 503, with `Retry-After` |
| DEADLINE_EXCEEDED | 504 |

Below, *again?* says whether the same call, as it is, may succeed later:

- **no**: not without a change of the request, of who calls, or of what there is.
- **yes**: repeat it with the same request id, after the time in `RetryInfo` where there is one.
- **later**: when something else has ended or made room; `RetryInfo` says how long to wait where
  that is known.
- **after a read**: read what it is about again, then send it with what is current.
- **once**: then give the request id to the operator.

What metadata has *at times* depends on where it went wrong. A failure of what makes a workspace
has `step`, too: which one; one of what unpacks an archive `entry`, the one where it stopped, and
`placed`, how many of its entries are there already. A reason that is told *in
`failure`* is no failure of a call: it says why a workspace is FAILED. One that is told *behind*
the gateway goes from one service of Cove to another; callers are told what it means to them. A
failure made by gRPC itself, before any server of Cove was reached, has a code only.
"""

_CONFIGURATION_HEAD: Final = """\
# Configuration

<!-- Written by scripts/gen_docs.py from the Config of each service. -->

Each process is configured by environment variables, `COVE_<SERVICE>__<FIELD>` with two
underscores. A variable of its own service that it does not know, or with a bad value, stops it
at the start with exit status 2, all problems told at once. Variables of the form that Kubernetes
injects for services (`COVE_REGISTRY_SERVICE_HOST`, `COVE_REGISTRY_PORT_7421_TCP`) are ignored.

Durations are seconds (`30`, `0.5`) or units (`30s`, `5m`, `1h30m`, `2d`); sizes are bytes or
units (`512KiB`, `2GiB`); lists are separated by commas. An empty variable is one that is not set.
"""


_TABLE: Final = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end -->)", re.DOTALL)
"""The part of docs/drivers.md that is written here."""


def main(arguments: list[str]) -> int:
    pages = {ERRORS: errors_page(), CONFIGURATION: configuration_page(), DRIVERS: drivers_page()}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)}: not up to date; run scripts/gen_docs.py")
        return bool(stale)
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(pages[path])
    return 0


def errors_page() -> str:
    parts = [_ERRORS_HEAD]
    known = reasons().values()
    for section, title in _SECTIONS.items():
        parts.append(f"\n## {title}\n\n{_ERRORS_TABLE}")
        for each in known:
            if each.number // 100 == section:
                cells = (f"`{each.name}`", each.told, each.cause, each.metadata, each.remedy)
                parts.append(f"| {' | '.join(map(_cell, cells))} | {each.again} |\n")
    return "".join(parts)


def drivers_page() -> str:
    return _TABLE.sub(lambda _: table(), DRIVERS.read_text())


def configuration_page() -> str:
    parts = [_CONFIGURATION_HEAD]
    shared = {item.name for item in fields(ServerConfig)}
    first = True
    for config in configs():
        if first:
            parts.append("\n## Every service\n\nHere `X` is the name of the service.\n\n")
            parts.append(_table(config, shared, placeholder=True))
            first = False
        own = {item.name for item in fields(config)} - shared
        changed = {
            name for name in shared if _default(config, name) != _default(ServerConfig, name)
        }
        parts.append(f"\n## {config.service}\n\n")
        text = _table(config, own | changed, placeholder=False)
        parts.append(text if own | changed else "Nothing of its own.\n")
    return "".join(parts)


def configs() -> list[type[ServerConfig]]:
    """The `Config` of each service that is here."""
    names = [f"{service}.config" for service in SERVICES]
    return [importlib.import_module(name).Config for name in names if find_spec(name)]


def _table(config: type[ServerConfig], names: set[str], *, placeholder: bool) -> str:
    kinds = get_type_hints(config, include_extras=True)
    texts = docstrings(config)
    lines = ["| variable | type | default | |\n|---|---|---|---|\n"]
    for item in fields(config):
        if item.name in names:
            name = variable(config, item)
            if placeholder:
                name = name.replace(f"COVE_{config.service.upper()}__", "COVE_X__")
            row = (f"`{name}`", kind_text(kinds[item.name]), default_text(item, kinds[item.name]))
            lines.append(f"| {' | '.join(row)} | {_cell(texts[item.name])} |\n")
    return "".join(lines)


def docstrings(config: type[ServerConfig]) -> dict[str, str]:
    """The docstring below each field, the nearest class first."""
    texts: dict[str, str] = {}
    for each in reversed(config.__mro__):
        if not (isinstance(each, type) and issubclass(each, ServerConfig)):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(body, ast.ClassDef)
        for assigned, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(assigned, ast.AnnAssign) and isinstance(text, ast.Expr):
                assert isinstance(assigned.target, ast.Name)
                assert isinstance(text.value, ast.Constant)
                texts[assigned.target.id] = " ".join(str(text.value.value).split())
    undescribed = {item.name for item in fields(config)} - texts.keys()
    if undescribed:
        raise SystemExit(
            f"{config.__module__}: no docstring under {', '.join(sorted(undescribed))}"
        )
    return texts


def kind_text(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind == ByteSize:
        return "size"
    if origin in (Union, types.UnionType):
        return " or ".join(kind_text(each) for each in arguments if each is not types.NoneType)
    if origin is tuple:
        return f"list of {kind_text(arguments[0])}"
    if arguments:
        return ", ".join(f"`{each}`" for each in arguments)
    names = {timedelta: "duration", Path: "path", str: "text", bool: "true or false"}
    return names.get(kind, "number")


def default_text(item: "Field[Any]", kind: Any) -> str:
    if required(item):
        return "see right" if "variable" in item.metadata else "required"
    default = item.default
    if default is MISSING:
        assert item.default_factory is not MISSING
        default = item.default_factory()
    if default in ("", None, ()):
        return ""
    if isinstance(default, timedelta):
        return f"`{_duration(default)}`"
    if isinstance(default, tuple):
        return f"`{','.join(map(str, default))}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int) and kind == ByteSize:
        return f"`{_size(default)}`"
    return f"`{default}`"


def _duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _size(value: int) -> str:
    units = ["", "KiB", "MiB", "GiB", "TiB"]
    while value % 1024 == 0 and len(units) > 1:
        value //= 1024
        units.pop(0)
    return f"{value}{units[0]}"


def _default(config: type[ServerConfig], name: str) -> Any:
    (item,) = (item for item in fields(config) if item.name == name)
    return item.default


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
