"""How long the registry keeps what is not the environments themselves."""

import sqlite3
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.registry.sqlite_tenants import sweep_audit
from services.registry.sqlite_tokens import sweep_tokens

PART: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long is kept what is not the environments themselves."""

    changes: int = 100_000
    changes_age: timedelta = timedelta(hours=24)
    requests_age: timedelta = timedelta(hours=24)
    audit_age: timedelta = timedelta(days=90)

    def until(self, compacted: int, latest: int, old: int) -> int:
        """The last revision to throw away now; `old` is the last one that is too old."""
        return min(max(old, latest - self.changes, compacted), compacted + PART)


def sweep(db: sqlite3.Connection, now: int, retention: Retention) -> int:
    """Delete a bounded number of old changes and requests, oldest first."""
    compacted, latest = db.execute("SELECT compacted, latest FROM counter").fetchone()
    (old,) = db.execute(
        "SELECT coalesce(max(revision), 0) FROM"
        " (SELECT revision, time FROM change ORDER BY revision LIMIT ?) WHERE time < ?",
        (PART, now - ns(retention.changes_age)),
    ).fetchone()
    until = retention.until(compacted, latest, old)
    changes = db.execute("DELETE FROM change WHERE revision <= ?", (until,)).rowcount
    db.execute("UPDATE counter SET compacted = ?", (until,))
    requests = db.execute(
        "DELETE FROM request WHERE rowid IN"
        " (SELECT rowid FROM request WHERE time < ? ORDER BY time LIMIT ?)",
        (now - ns(retention.requests_age), PART),
    ).rowcount
    audited = sweep_audit(db, now - ns(retention.audit_age))
    ended = sweep_tokens(db, now, now - ns(retention.audit_age))
    return changes + requests + audited + ended


def ns(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1e9)
