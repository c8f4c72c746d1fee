"""What an environment may reach: checked, and put in force where its sandbox runs."""

import logging
from dataclasses import asdict
from pathlib import Path

from agent.channel import PeerGone, PeerTooOld
from agent.client import AgentClient
from agent.egress.policy import Policy
from agent.protocol import Facts, State
from servicekit.errors import InvalidArgument, ServiceError, Unavailable
from services.provider.driver import Network
from services.provider.drivers.making import Sandboxes
from services.provider.drivers.records import Record
from services.provider.drivers.ways_out import WaysOut
from services.provider.errors import CapabilityMissing

_log = logging.getLogger(__name__)


class Networks:
    def __init__(self, ways_out: WaysOut) -> None:
        self._ways_out = ways_out

    async def check(self, network: Network, facts: Facts) -> None:
        """Raises InvalidArgument, and CapabilityMissing where rules cannot be enforced."""
        self.form(network)
        if not network.rules:
            return
        if not facts.way_out:
            raise CapabilityMissing(
                "the launcher is older than this provider: its sandboxes have no way out",
                remedy="End the launcher when nothing runs; a new one takes its place.",
                capability="network",
            )
        if not await self._ways_out.available():
            raise CapabilityMissing(
                "this node cannot let a workspace reach a list of hosts",
                remedy="Leave the network out, or have the operator run the proxy "
                "(`python -m agent.egress`), which needs Linux 5.14 or newer.",
                capability="network",
            )

    def form(self, network: Network) -> None:
        """Raises InvalidArgument."""
        for number, rule in enumerate(network.rules):
            try:
                Policy.from_json({"rules": [asdict(rule)], "networks": ()})
            except ValueError as error:
                raise InvalidArgument(
                    f"spec.network.allow[{number}].host", "not an address"
                ) from error

    async def let(self, record: Record, launcher: Sandboxes, facts: Facts) -> int:
        """Put the network of a record in force; says how many connections were cut.

        Raises what `WaysOut.let` does.
        """
        status = await launcher.inspect(record.uid)
        if status.state is not State.RUNNING:
            return await self._ways_out.shut(record.uid)
        try:
            async with AgentClient.connect(Path(status.socket), facts.sandbox_uid) as agent:
                return await self._ways_out.let(record.uid, record.spec.network, agent)
        except (PeerGone, PeerTooOld) as error:
            await self._ways_out.shut(record.uid)
            if (await launcher.inspect(record.uid)).state is State.RUNNING:
                raise Unavailable("the agent does not answer", service="agent") from error
            return 0

    async def restored(self, record: Record, launcher: Sandboxes, facts: Facts) -> bool:
        """As `let`; what fails now is tried again, and keeps nobody from running commands."""
        try:
            await self.let(record, launcher, facts)
        except ServiceError as error:
            _log.warning("no way out yet: %s", error, extra={"fields": {"uid": record.uid}})
            self._ways_out.later()
            return False
        return True
