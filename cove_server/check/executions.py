"""Executions that cannot be read, and logs in which something is that no agent wrote."""

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from agent.record import Damage
from cove_server.check.aside import Aside
from cove_server.check.finding import Finding
from cove_server.check.node import Node
from services.executor.logs import OpenLog
from services.executor.store import Store

_FAR = 1 << 62


class Executions:
    def __init__(self, node: Node, aside: Aside) -> None:
        self._node = node
        self._aside = aside

    def look(self) -> Iterator[Finding]:
        if not self._node.executions:
            return
        store = Store(self._node.state / "executor" / "executions")
        for uid in sorted(self._node.executions):
            for execution_id in store.ids(uid):
                folder = store.folder(uid, execution_id)
                if problem := _unreadable(store, uid, execution_id):
                    if folder.exists():  # Else it was removed meanwhile.
                        yield self._finding("execution-damaged", folder, problem, self._moving)
                elif (at := _damaged(folder)) is not None:
                    found = f"from byte {at} on it is no log"
                    yield self._finding("log-damaged", folder, found, self._cutting(at))

    def _finding(
        self,
        kind: str,
        folder: Path,
        found: str,
        mending: Callable[[str], Awaitable[str]],
    ) -> Finding:
        subject = str(folder.relative_to(self._node.state))
        return Finding(kind, subject, found, lambda: mending(subject))

    async def _moving(self, subject: str) -> str:
        uid = subject.split("/")[2]
        return self._aside.move(subject, uid, f"{subject} cannot be read")

    def _cutting(self, at: int) -> Callable[[str], Awaitable[str]]:
        async def mend(subject: str) -> str:
            uid = subject.split("/")[2]
            self._aside.copy(f"{subject}/log", uid, f"{subject}/log is no log from byte {at} on")
            os.truncate(self._node.state / subject / "log", at)
            return f"cut at byte {at}; the whole is in lost+found/{uid}"

        return mend


def _unreadable(store: Store, uid: str, execution_id: str) -> str:
    try:
        record = store.read(uid, execution_id)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its record is damaged: {error}"
    return "" if record else "it has no record"


def _damaged(folder: Path) -> int | None:
    """Where a log begins to be none. One that was cut short is whole as far as it goes."""
    try:
        log = OpenLog(folder)
    except FileNotFoundError:
        return None
    try:
        log.seek(_FAR)
        return log.position if log.damage is Damage.CORRUPT else None
    finally:
        log.close()
