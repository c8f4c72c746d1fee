"""What each driver can, as the page of drivers shows it and tests/drivers holds it to."""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from typing import Final

from services.provider.capabilities import Capability
from services.provider.drivers.abilities import BY_HOST, BY_THE_AGENT, WITH_IMAGES
from services.provider.drivers.dagger.abilities import CAN
from services.provider.drivers.local import Launched

CERTAIN: Final[Mapping[str, frozenset[Capability]]] = {
    "local": BY_THE_AGENT | Launched.can,
    "docker": BY_THE_AGENT | WITH_IMAGES,
    "dagger": CAN,
}
"""By driver, what its environments can wherever they are."""
BY_THE_MACHINE: Final[Mapping[str, frozenset[Capability]]] = {
    "local": BY_HOST,
    "docker": BY_HOST,
    "dagger": frozenset(),
}
"""What they can where the machine lets them: its control groups, say."""


def table() -> str:
    """In Markdown."""
    lines = ["| capability | " + " | ".join(f"`{name}`" for name in CERTAIN) + " | what it is |\n"]
    lines.append("|---|" + "---|" * (len(CERTAIN) + 1) + "\n")
    for capability, text in _described().items():
        cells = [_cell(name, capability) for name in CERTAIN]
        lines.append(f"| `{capability.value}` | {' | '.join(cells)} | {text} |\n")
    return "".join(lines)


def _cell(driver: str, capability: Capability) -> str:
    if capability in CERTAIN[driver]:
        return "yes"
    return "where the machine can" if capability in BY_THE_MACHINE[driver] else "-"


def _described() -> dict[Capability, str]:
    """The docstring below each member."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(Capability))).body
    assert isinstance(body, ast.ClassDef)
    texts = dict.fromkeys(Capability, "")
    for assigned, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(assigned, ast.Assign) and isinstance(text, ast.Expr):
            assert isinstance(assigned.targets[0], ast.Name)
            assert isinstance(text.value, ast.Constant)
            member = Capability[assigned.targets[0].id]
            texts[member] = " ".join(str(text.value.value).split())
    return texts
