"""What lists of executions are filtered and ordered by: docs/filters.md."""

from collections.abc import Callable
from typing import Final

from cove.executor.v1.executor_pb2 import Execution
from servicekit.filters.fields import Fields
from servicekit.filters.filters import Filter
from servicekit.filters.order import OrderInvalid, parse_order
from services.executor import convert
from services.executor.executions import Snapshot
from services.executor.places import BY_ID, Order

FIELDS: Final = (
    *("name", "state", "create_time", "start_time", "output_bytes", "input_bytes", "input_closed"),
    *("spec.argv", "spec.script", "spec.cwd", "exit", "exit.code", "exit.signal"),
    *("exit.signal.number", "exit.timed_out", "exit.limit", "exit.cancelled", "exit.lost"),
    *("exit.end_time", "exit.cpu_time", "exit.peak_memory_bytes"),
)

ORDERS: Final = ("name", "create_time")

_MAX_BYTES: Final = 16 << 10
"""Of a filter: the gateway, which takes 4 KiB of a caller, writes it in more words."""


def selection(text: str, parent: str) -> Callable[[Snapshot], bool]:
    """Tells which executions of `parent` a filter selects. Raises `FilterInvalid`."""
    if not text:
        return lambda _: True
    fields = Fields(Execution.DESCRIPTOR, FIELDS, collection=f"{parent}/executions/")
    selected = Filter(text, fields, max_bytes=_MAX_BYTES)
    return lambda found: selected.matches(convert.execution(found))


def ordering(text: str) -> Order:
    """Raises `OrderInvalid`."""
    terms = parse_order(text, ORDERS)
    if len(terms) > 1:
        raise OrderInvalid(text, "one field")
    return Order(terms[0].field == "create_time", terms[0].descending) if terms else BY_ID
