"""Has an engine make sandboxes: containers, each with our agent as its program."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final, Self, cast

from agent import PROTOCOL_VERSION, SANDBOX_UID, bringing
from agent.channel import PeerGone, PeerTooOld
from agent.client import AgentClient
from agent.protocol import SPEC_VERSION, Facts, Mode, SandboxSpec, State
from servicekit import calls
from servicekit.errors import InvalidArgument, ServiceError, Unavailable
from services.provider.driver import Spec
from services.provider.drivers.abilities import WITH_IMAGES
from services.provider.drivers.docker import building, groups
from services.provider.drivers.docker import engine as engines
from services.provider.drivers.docker.containers import Containers, NotOurs, StartFailed
from services.provider.drivers.docker.engine import Engine, EngineAway, EngineError
from services.provider.drivers.docker.images import Image, Images, check_name
from services.provider.drivers.docker.labels import Labels, Owner
from services.provider.drivers.docker.setups import Setups, key_of
from services.provider.drivers.docker.shape import Made
from services.provider.drivers.making import Sandboxes
from services.provider.drivers.records import Record, Records
from services.provider.drivers.ways_out import WaysOut
from services.provider.errors import ActivationFailed, HandleInvalid, SandboxUnavailable

_log = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
"""Starts of a container whose agent was just going idle."""
_REST: Final = 30.0
"""Seconds between two looks for what containers that have ended left."""
_SOON: Final = 1.0
"""The same while the engine is away."""
_REMAPPED: Final = ("name=userns", "name=rootless")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator says of the engine."""

    socket: Path
    image: str = ""
    """Where a spec names none; empty: it has to."""
    runtime: str = ""
    """Of the engine's; empty: its own choice."""
    node: str = ""
    setup_age: timedelta = timedelta(days=14)
    """After how long without use the image of a setup is removed."""


class Contained:
    """Keeps nothing but what the engine was found to be; a new one is looked at again."""

    name: Final = "docker"
    can: Final = WITH_IMAGES

    def __init__(
        self, engine: Engine, state: Path, runtime: Path, settings: Settings, ways_out: WaysOut
    ) -> None:
        self._engine = engine
        self._folder = state / "provider" / "docker"
        self._settings = settings
        self._images = Images(engine, self._folder / "images")
        labels = Labels(_identity(self._folder))
        self._containers = Containers(engine, runtime, labels, _facts(settings.node, "1"))
        builder = building.Builder(engine, runtime / "d", ways_out)
        self._setups = Setups(engine, builder, self._folder / "setups", labels)
        self._records = Records(state / "provider" / "environments")
        self._proven: Facts | None = None
        self._proving = asyncio.Lock()
        self._library = Path()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, state: Path, runtime: Path, settings: Settings, ways_out: WaysOut
    ) -> AsyncIterator[Self]:
        """Usable while the block runs. The engine may come later, and come back."""
        async with Engine.open(settings.socket) as engine:
            made = cls(engine, state, runtime, settings, ways_out)
            with calls.detached():
                keeping = asyncio.create_task(made._keep())
            try:
                yield made
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Sandboxes]:
        try:
            yield self._containers
        except EngineAway as error:
            self._proven = None
            raise Unavailable("the engine is away", service="docker") from error
        except EngineError as error:
            raise Unavailable(f"the engine refuses: {error}"[:500], service="docker") from error
        except NotOurs as error:
            raise HandleInvalid("handle", "its container is of another state directory") from error

    async def probed(self) -> Facts:
        """What containers can do here, as the engine says; none is started for it."""
        async with self._proving:
            return self._proven or await self._proved()

    async def _proved(self) -> Facts:
        if not self._settings.socket.exists():
            raise SandboxUnavailable(
                "there is no engine of containers at this socket",
                remedy="Start it, or set COVE_PROVIDER__DOCKER_SOCKET to where its socket is.",
                cause=str(self._settings.socket),
            )
        async with self.connected():
            found = await self._engine.facts()
        if problem := await asyncio.to_thread(self._problem, found):
            raise SandboxUnavailable(
                "no container can be made at this engine", remedy=problem, cause=problem[:500]
            )
        self._proven = _facts(self._settings.node, found.cgroup_version)
        self._containers.suppose(self._proven)
        return self._proven

    async def told(self) -> tuple[Facts, str]:
        try:
            return await self.probed(), ""
        except SandboxUnavailable as error:
            return await self._containers.facts(), error.remedy
        except Unavailable as error:
            return await self._containers.facts(), f"Start the engine again: {error}"

    async def check(self, spec: Spec) -> None:
        if not (spec.image or self._settings.image):
            raise InvalidArgument(
                "spec.image", "name one: this node has no image for those who name none"
            )
        check_name(spec.image or self._settings.image)

    async def chosen(self, record: Record) -> Record:
        """With the digest that the name of its image stands for now."""
        async with self.connected():
            image = await self._images.resolve(record.spec.image or self._settings.image)
            record = replace(record, image=image.identity, image_source=image.source)
            await self._images.users(await self._stood_on(record))
        return record

    async def start(self, sandboxes: Sandboxes, record: Record, spec: SandboxSpec) -> bool:
        containers = cast("Containers", sandboxes)
        image = _base(record)
        owner = Owner(tenant=record.tenant, node=self._settings.node)
        said = ""
        for _ in range(_ATTEMPTS):
            before = await containers.inspect(spec.uid)
            if before.state is State.ABSENT:
                image = await self._stood_on(record)
            made = await self._made(image)
            try:
                status = await containers.start(spec, owner, made)
            except StartFailed as error:
                raise ActivationFailed(
                    "the container did not start", cause=str(error)[:500]
                ) from error
            if await containers.frozen(spec.uid):
                return False  # Its agent answers when it is thawed.
            try:
                async with AgentClient.connect(Path(status.socket), SANDBOX_UID):
                    return before.state is State.ABSENT
            except (PeerGone, PeerTooOld) as error:
                said = str(error)
                if isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError):
                    # Nobody listens: whoever started it did not live to hand it all it needs.
                    await containers.kill(spec.uid)
        raise ActivationFailed("the agent does not answer", cause=said[:500])

    async def _stood_on(self, record: Record) -> Image:
        """What its containers are made from, which the engine has then; of a setup that is gone,
        it is run again. Raises ImageUnavailable, BuildFailed."""
        base = _base(record)
        await self._images.have(base)
        if not record.spec.setup:
            return base
        return await self._setups.built(record, await self._made(base))

    async def _made(self, image: Image) -> Made:
        return Made(
            image=image.identity,
            library=self._library,
            users=await self._images.users(image),
            runtime=self._settings.runtime,
        )

    def _problem(self, found: engines.Facts) -> str:
        """Why no container can be made, with the remedy."""
        if os.geteuid() != 0:
            return "run provider as root: worktrees are mounted for, and owned by, another user"
        for word in _REMAPPED:
            if any(each.startswith(word) for each in found.security):
                return f"the engine maps users ({word}): run one that does not"
        runtime = self._settings.runtime
        if runtime and runtime not in found.runtimes:
            known = ", ".join(sorted(found.runtimes))
            return f"the engine knows no runtime {runtime}, but {known}"
        if problem := groups.problem():
            return problem
        try:
            folder = self._folder / "library"
            folder.mkdir(exist_ok=True)
            self._library = bringing.bring(folder)
        except (bringing.CannotBring, OSError) as error:
            return str(error)
        return ""

    async def _keep(self) -> None:
        """Thaw what was forgotten, and tidy up, now and then."""
        while True:
            wait = _SOON
            try:
                async with self.connected():
                    await self._containers.thaw_forgotten()
                    for uid in await self._containers.left():
                        await self._containers.tidy(uid)
                    await self._setups.tidy()
                    await self._setups.expire(self._settings.setup_age, self._keys_in_use)
                wait = _REST
            except ServiceError:
                pass  # At the next look.
            except Exception:
                _log.exception("what containers left cannot be looked after")
            await asyncio.sleep(wait)

    def _keys_in_use(self) -> set[str]:
        """Of setups that environments were made with."""
        records = map(self._records.read, self._records.uids())
        return {key_of(each) for each in records if each and each.spec.driver == self.name}


def _base(record: Record) -> Image:
    return Image(name=record.spec.image, identity=record.image, source=record.image_source)


def _facts(node: str, cgroup_version: str) -> Facts:
    """What containers are, in the launcher's words."""
    method = f"cgroup_v{cgroup_version}"
    return Facts(
        version=PROTOCOL_VERSION,
        mode=Mode.ROOT,
        node=node,
        sandbox_uid=SANDBOX_UID,
        bwrap="",
        memory=method,
        pids=method,
        cpu=method,
        spec=SPEC_VERSION,
        way_out=True,
        freeze=method,
    )


def _identity(folder: Path) -> str:
    """Of this state directory, made once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "identity"
    if not path.exists():
        writing = folder / f".identity.{os.getpid()}"
        writing.write_text(secrets.token_hex(8))
        try:
            os.link(writing, path)
        except FileExistsError:
            pass  # Another provider was quicker.
        finally:
            writing.unlink()
    return path.read_text()
