"""The launcher of this node."""

from collections.abc import Mapping, Sequence

from agent.launcher_client import LauncherClient, LauncherError, PeerGone, PeerTooOld
from cove_server.companion import Companion
from cove_server.errors import CannotStart
from cove_server.places import Places


class Launcher(Companion):
    """Ends its sandboxes when it is told to stop."""

    name = "launcher"
    called = "launcher"
    module = "agent.launcher"

    def __init__(self, places: Places, env: Mapping[str, str]) -> None:
        super().__init__(places, env)
        self._node = places.node()

    def _arguments(self) -> Sequence[str]:
        places = self._places
        folders = ("--runtime", str(places.runtime), "--state", str(places.state))
        return ("--node", self._node, *folders)

    async def _answers(self) -> bool:
        path = self._places.socket(self.name)
        try:
            async with LauncherClient.connect(path) as client:
                node = (await client.facts()).node
        except PeerGone:
            return False
        except PeerTooOld as error:
            raise CannotStart(
                f"a launcher of another version runs: {error}",
                f"End process {self._pid()}; its sandboxes go on, and are taken over.",
            ) from None
        if node != self._node:
            raise CannotStart(
                f"the launcher at {path} is that of another node", "Choose another --runtime."
            )
        return True

    async def _tell_to_end(self, pid: int) -> None:  # noqa: ARG002
        try:
            async with LauncherClient.connect(self._places.socket(self.name)) as client:
                await client.shutdown(stop_sandboxes=True)
        except (PeerGone, PeerTooOld, LauncherError) as error:
            raise OSError(str(error)) from error
