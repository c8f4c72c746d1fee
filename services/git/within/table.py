"""All operations that a worker can be asked to do, by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.git.within import look, store
from services.git.within.operations import Answer, Context, Operation
from services.git.within.wire import Payload


def echo(payload: Payload, descriptors: list[int], context: Context) -> Answer:
    """Answers with what it is given, and with the how-many-th call of its worker that is."""
    context.cache["calls"] = context.cache.get("calls", 0) + 1
    return {**payload, "calls": context.cache["calls"]}, list(descriptors)


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {"echo": echo, **look.OPERATIONS, **store.OPERATIONS}
)
