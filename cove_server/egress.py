"""The proxy of this node: the way out of its sandboxes."""

import os
import signal
from collections.abc import Sequence

from agent.egress_client import EgressClient, EgressError, PeerGone, PeerTooOld
from cove_server.companion import Companion
from cove_server.errors import CannotStart


class Egress(Companion):
    """Without it workspaces reach nothing, and everything else works."""

    name = "egress"
    called = "proxy"
    module = "agent.egress"

    def _arguments(self) -> Sequence[str]:
        folder = self._places.logs / "egress"
        return ("--runtime", str(self._places.runtime), "--log", str(folder))

    async def _answers(self) -> bool:
        try:
            async with EgressClient.connect(self._places.socket(self.name)):
                return True
        except PeerGone:
            return False
        except EgressError:  # It cannot work here: what needs it is refused, with the reason.
            return True
        except PeerTooOld as error:
            raise CannotStart(
                f"a proxy of another version runs: {error}",
                f"End process {self._pid()}; what goes through it is cut.",
            ) from None

    async def _tell_to_end(self, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
