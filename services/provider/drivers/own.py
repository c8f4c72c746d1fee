"""Which environments are one driver's own, and how they are told."""

from datetime import UTC, datetime
from typing import Final

from agent.handle import Handle
from agent.protocol import Facts, SandboxStatus, State
from services.provider.driver import Found, Observation
from services.provider.drivers.records import Record, Records
from services.provider.errors import HandleInvalid, NotProvisioned

GENERATION: Final = 1
"""Of every handle: they do not move."""


class Own:
    """By their records, which those of other drivers are among."""

    def __init__(self, driver: str, records: Records) -> None:
        self._driver = driver
        self._records = records

    def is_ours(self, record: Record) -> bool:
        return record.spec.driver == self._driver

    def is_anothers(self, record: Record | None) -> bool:
        """Whether it is another driver's for sure."""
        return record is not None and not self.is_ours(record)

    def record(self, uid: str) -> Record:
        """Raises NotProvisioned, HandleInvalid."""
        record = self._records.read(uid)
        if record is None or not self._records.whole(uid):
            raise NotProvisioned("nothing is provisioned for it", uid=uid)
        self._check(record)
        return record

    def check(self, uid: str) -> None:
        """As `record`, of what may be broken."""
        if not self._records.has(uid):
            raise NotProvisioned("nothing is provisioned for it", uid=uid)
        self._check(self._records.read(uid))

    def handle(self, uid: str, node: str) -> bytes:
        return Handle(driver=self._driver, node=node, uid=uid, generation=GENERATION).encode()

    def uid(self, handle: bytes, facts: Facts) -> str:
        """Raises HandleInvalid."""
        try:
            found = Handle.decode(handle)
        except ValueError as error:
            raise HandleInvalid("handle", str(error)) from error
        if (found.driver, found.node) != (self._driver, facts.node):
            raise HandleInvalid("handle", "of another driver or node")
        return found.uid

    def observe(
        self, uid: str, record: Record | None, status: SandboxStatus | None, node: str
    ) -> Observation:
        active = status is not None and status.state is not State.ABSENT
        if record is None or not self._records.whole(uid):
            return Observation(uid=uid, state=Found.BROKEN, driver=self._driver)
        return Observation(
            uid=uid,
            handle=self.handle(uid, node),
            generation=GENERATION,
            state=Found.ACTIVE if active else Found.DORMANT,
            driver=self._driver,
            tenant=record.tenant,
            provision_time=record.provision_time,
            activate_time=datetime.fromtimestamp(status.started, UTC)
            if status is not None and active
            else None,
        )

    def _check(self, record: Record | None) -> None:
        if self.is_anothers(record):
            raise HandleInvalid("handle", "the environment is another driver's")
