"""What an operation is, which a worker can be asked to do.

An operation gets the payload, the descriptors that came with it, and a `Context` that lives as
long as its worker. It returns its answer and descriptors to send along. All these descriptors
are closed for it. It may use much memory, block, or raise: then its caller is told so.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.git.within.wire import Payload


@dataclass(slots=True)
class Context:
    """Lives from call to call in one worker: nothing in it may be relied on to be there."""

    cache: dict[str, Any] = field(default_factory=dict)


Answer = tuple[Payload, list[int]]
Operation = Callable[[Payload, list[int], Context], Answer]
