"""The SQL that reads a part of a list: as SQLite and PostgreSQL say alike."""

from collections.abc import Collection
from typing import Any, Final, TypeAlias

from services.registry.store import Order, Place

PLACEHOLDER: Final = "{}"
"""To be replaced by what the database calls one, in order."""

HISTORY: Final = (
    "SELECT c.revision, c.tenant, c.name, c.uid, c.document, c.previous, e.document AS replaced"
    " FROM change c LEFT JOIN change e ON e.revision = c.previous"
)
"""The columns of an `Event`; of what it replaced, if that is still kept."""

CENSUS: Final = "SELECT state, count(*) FROM environment GROUP BY state"

Statement: TypeAlias = tuple[str, list[Any]]
"""A text with placeholders, and the value of each."""


def statement(
    columns: str,
    tenant: str | None,
    after: Place | None,
    states: Collection[int],
    order: Order,
    limit: int,
) -> Statement:
    """Reads no more of an index than `limit` rows, and as many for each of `states`."""
    if len(states) <= 1:
        return _part(columns, tenant, after, next(iter(states), None), order, limit)
    texts, values = [], []
    for state in states:
        text, its = _part(columns, tenant, after, state, order, limit)
        texts.append(f"SELECT * FROM ({text}) AS part")  # noqa: S608 - nor here.
        values += its
    text = f"{' UNION ALL '.join(texts)} ORDER BY {ordering(tenant, order)} LIMIT {PLACEHOLDER}"
    return text, [*values, limit]


def _part(
    columns: str,
    tenant: str | None,
    after: Place | None,
    state: int | None,
    order: Order,
    limit: int,
) -> Statement:
    where, values = _where(tenant, after, order)
    if state is not None:
        where, values = f"state = {PLACEHOLDER} AND {where}", [state, *values]
    return (
        f"SELECT {columns} FROM environment WHERE {where}"  # noqa: S608 - no data in it.
        f" ORDER BY {ordering(tenant, order)} LIMIT {PLACEHOLDER}",
        [*values, limit],
    )


def _where(tenant: str | None, after: Place | None, order: Order) -> Statement:
    """The condition that begins a page."""
    later = "<" if order.names_descending else ">"
    if tenant is None:
        assert not order.time, "all tenants are listed by name"
        if after is None:
            return "TRUE", []
        return (
            f"(name, tenant) {later} ({PLACEHOLDER}, {PLACEHOLDER})",
            [after.name, after.tenant],
        )
    if after is None:
        return f"tenant = {PLACEHOLDER}", [tenant]
    if not order.time:
        return f"tenant = {PLACEHOLDER} AND name {later} {PLACEHOLDER}", [tenant, after.name]
    then = "<" if order.descending else ">"
    # The first part is what the index is entered by; few have the same time to the nanosecond.
    return (
        f"tenant = {PLACEHOLDER} AND {order.time} {then}= {PLACEHOLDER}"
        f" AND ({order.time} {then} {PLACEHOLDER} OR name {later} {PLACEHOLDER})",
        [tenant, after.time, after.time, after.name],
    )


def ordering(tenant: str | None, order: Order) -> str:
    """What stands behind ORDER BY."""
    names = "DESC" if order.names_descending else "ASC"
    if tenant is None:
        return f"name {names}, tenant {names}"
    time = f"{order.time} {'DESC' if order.descending else 'ASC'}, " if order.time else ""
    return f"{time}name {names}"


def numbered(text: str) -> str:
    """With `$1` for the first placeholder, and so on, as PostgreSQL has them."""
    first, *rest = text.split(PLACEHOLDER)
    return first + "".join(f"${number}{each}" for number, each in enumerate(rest, start=1))
