"""What workspaces stand on: whether a spec can be made, and how its files must come together."""

from cove.mount.v1.mount_pb2 import Mount
from cove.provider.v1 import provider_pb2
from cove.registry.v1.registry_pb2 import Environment, EnvironmentSpec
from gateway.convert import provider_spec
from gateway.handles import Handles
from gateway.tools import Tools
from servicekit import calls


class Drivers:
    """Asks the provider. How a driver takes files it says once."""

    def __init__(self, tools: Tools, handles: Handles) -> None:
        self._provider = tools.provider
        self._handles = handles
        self._plain: dict[tuple[str, str], bool] = {}
        """By node and driver."""

    async def validate(self, spec: EnvironmentSpec) -> None:
        """Raises what the provider says of a spec that it cannot make."""
        request = provider_pb2.ValidateSpecRequest(spec=provider_spec(spec))
        answer = await self._provider.unary(self._provider.rpc.ValidateSpec, request)
        self._plain[_key(spec)] = bool(answer.mounts) and Mount.MODE_OVERLAY not in answer.mounts

    async def plain(self, spec: EnvironmentSpec) -> bool:
        """Whether its files must be one directory."""
        if _key(spec) not in self._plain:
            await self.validate(spec)
        return self._plain[_key(spec)]

    async def renew(self, environment: Environment) -> None:
        """Put the handle that is in force now into `environment`, and into its record."""
        request = provider_pb2.InspectEnvironmentRequest(handle=environment.handle)
        answer = await self._provider.unary(self._provider.rpc.InspectEnvironment, request)
        found = answer.observation
        await self._handles.note(environment, found.handle, found.generation)
        environment.handle, environment.handle_generation = found.handle, found.generation


def _key(spec: EnvironmentSpec) -> tuple[str, str]:
    return calls.current().node, spec.driver
