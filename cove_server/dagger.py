"""The stand-in of the driver `dagger` on this node, where COVE_DRIVERS names it."""

import os
import signal
from collections.abc import Mapping, Sequence

from agent.standin.client import PeerGone, PeerTooOld, StandinClient
from cove_server.companion import Companion
from cove_server.errors import CannotStart
from cove_server.places import Places

_PASSED = ("COVE_DAGGER__", "_EXPERIMENTAL_DAGGER_")
_ALSO = ("SSL_CERT_FILE", "SSL_CERT_DIR", "KUBECONFIG")


class Dagger(Companion):
    """Without an engine, or without its CLI, it runs too, and says what is missing."""

    name = "dagger"
    called = "Dagger stand-in"
    module = "engines.dagger"

    def __init__(self, places: Places, env: Mapping[str, str]) -> None:
        super().__init__(places, env)
        self._env |= {
            name: value for name, value in env.items() if name.startswith(_PASSED) or name in _ALSO
        }
        self._node = places.node()

    def _arguments(self) -> Sequence[str]:
        places = self._places
        folders = ("--runtime", str(places.runtime), "--state", str(places.state))
        return ("--node", self._node, *folders)

    async def _answers(self) -> bool:
        try:
            async with StandinClient.connect(self._places.socket(self.name)):
                return True
        except PeerGone:
            return False
        except PeerTooOld as error:
            raise CannotStart(
                f"a stand-in of another version runs: {error}",
                f"End process {self._pid()}; its commands are lost.",
            ) from None

    async def _tell_to_end(self, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
