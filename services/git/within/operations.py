"""What a worker can be asked to do, by name.

An operation gets the payload, the descriptors that came with it, and a `Context` that lives as
long as its worker. It returns its answer and descriptors to send along. All these descriptors
are closed for it. It may use much memory, block, or raise: then its caller is told so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from services.git.within.wire import Payload


@dataclass(slots=True)
class Context:
    """Lives from call to call in one worker: nothing in it may be relied on to be there."""

    cache: dict[str, Any] = field(default_factory=dict)


Answer = tuple[Payload, list[int]]
Operation = Callable[[Payload, list[int], Context], Answer]


def echo(payload: Payload, descriptors: list[int], context: Context) -> Answer:
    """Answers with what it is given, and with the how-many-th call of its worker that is."""
    context.cache["calls"] = context.cache.get("calls", 0) + 1
    return {**payload, "calls": context.cache["calls"]}, list(descriptors)


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType({"echo": echo})
