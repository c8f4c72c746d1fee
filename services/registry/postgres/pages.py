"""Parts of a list as PostgreSQL reads them."""

from collections.abc import Collection
from typing import Any

from services.registry.postgres.commit import COLUMNS
from services.registry.postgres.database import Connection
from services.registry.selecting import PLACEHOLDER, numbered, ordering, statement
from services.registry.store import Order, Page, Place, Record


async def read_page(
    db: Connection,
    tenant: str | None,
    after: Place | None,
    states: Collection[int],
    order: Order,
    limit: int,
    max_bytes: int,
) -> Page:
    """As `Store.page`."""
    part, values = statement(COLUMNS, tenant, after, states, order, limit + 1)
    by = ordering(tenant, order)
    # The sizes are added up there, so that no more than the page comes here.
    sql = numbered(
        f"SELECT {COLUMNS}, found FROM (SELECT *,"  # noqa: S608 - no data in it.
        f" sum(octet_length(document)) OVER (ORDER BY {by}) AS bytes,"
        f" row_number() OVER (ORDER BY {by}) AS place, count(*) OVER () AS found"
        f" FROM ({part}) part) sized"
        f" WHERE place = 1 OR (place <= {PLACEHOLDER} AND bytes <= {PLACEHOLDER})"
        " ORDER BY place"
    )
    rows: list[Any] = await db.fetch(sql, *values, limit, max_bytes)
    records = [Record(*row[:-1]) for row in rows]
    return Page(records, more=bool(rows) and rows[0]["found"] > len(rows))
