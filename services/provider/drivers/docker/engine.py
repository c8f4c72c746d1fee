"""An engine of containers, over its API. Its socket is root's, and nobody's but provider's."""

import asyncio
import io
import json
import re
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from aiodocker import Docker, DockerError

_USUAL: Final = aiohttp.ClientTimeout(total=60.0)
_NOBODY: Final = 900
"""The status that the client gives to what never reached an engine."""
_HEADERS: Final = 64 << 10
"""Bytes of a tar before its first file, at most."""
_LAST_WORDS: Final = 20
"""Lines of what a container said."""
_FRACTION: Final = re.compile(r"\.(\d{1,6})\d*")


class EngineAway(Exception):
    """Nobody answers at the socket, or not in time."""


class EngineError(Exception):
    """The engine refused or failed; the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def absent(self) -> bool:
        return self.status == 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an engine says of itself."""

    identity: str
    """Made once; a new one means that nothing which was kept by it is there."""
    machine: str
    cgroup_version: str
    runtimes: frozenset[str]
    security: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What an engine says of a container."""

    identity: str
    labels: Mapping[str, str]
    running: bool
    paused: bool
    pid: int = 0
    """Of its first process, where it runs; 0 where that was not asked."""
    started: float = 0.0
    """Seconds since 1970."""


class Engine:
    """A connection, which comes back by itself. What fails raises EngineAway or EngineError."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker
        self._volumes: Any = docker.volumes  # Which has no types.

    @classmethod
    @asynccontextmanager
    async def open(cls, socket: Path) -> AsyncIterator[Self]:
        """Needs nobody to be there yet."""
        async with Docker(f"unix://{socket}", timeout=_USUAL) as docker:
            yield cls(docker)

    async def facts(self) -> Facts:
        async with _told():
            info = await self._docker.system.info()
        return Facts(
            identity=str(info["ID"]),
            machine=str(info["Architecture"]),
            cgroup_version=str(info.get("CgroupVersion", "1")),
            runtimes=frozenset(info.get("Runtimes") or {}),
            security=tuple(info.get("SecurityOptions") or ()),
        )

    async def image(self, name: str) -> dict[str, Any]:
        """What is known of an image that is there."""
        async with _told():
            return await self._docker.images.inspect(name)

    async def images(self, label: str) -> list[dict[str, Any]]:
        """All that have the label `name=value`."""
        async with _told():
            return list(await self._docker.images.list(filters={"label": [label]}))

    async def remove_image(self, name: str) -> None:
        """One that is not there, or that a container runs from, is no error."""
        async with _told(404, 409):
            await self._docker.images.delete(name)

    async def pull(self, name: str, told: Callable[[Mapping[str, Any]], None]) -> None:
        """Fetch an image from its registry; `told` hears of the progress."""
        _, _, last = name.rpartition("/")
        params = {"fromImage": name} | ({} if ":" in last or "@" in last else {"tag": "latest"})
        # Its own `pull` leaves the connection open when it is broken off.
        async with self._answer("images/create", "POST", params, aiohttp.ClientTimeout()) as answer:
            async for line in answer.content:
                said = json.loads(line)
                if problem := said.get("error"):
                    raise EngineError(502, str(problem))
                told(said)

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """The identity of a new container."""
        async with _told():
            made = await self._docker.containers.create(dict(config), name=name)
            return str(made.id)

    async def read(self, container: str, path: str, most: int) -> bytes:
        """The first `most` bytes of a file of a container, or nothing where there is none."""
        url = f"containers/{container}/archive"
        try:
            # Its own `get_archive` takes all of a file into memory, which may be of any size.
            async with self._answer(url, "GET", {"path": path}) as answer:
                data = await _beginning(answer.content, _HEADERS + most)
        except EngineError as error:
            if error.absent:
                return b""
            raise
        return _first_file(data, most)

    async def start(self, container: str) -> None:
        async with _told():
            await self._docker.containers.container(container).start()

    async def ended(self, container: str) -> int:
        """Wait until it does not run; the code of its program."""
        async with _told():
            found = await self._docker.containers.container(container).wait(timeout=None)
        return int(found["StatusCode"])

    async def commit(self, container: str, repository: str, tag: str) -> str:
        """Make an image of what a container has become; its digest."""
        async with _told():
            made = await self._docker.containers.container(container).commit(
                repository=repository, tag=tag
            )
        return str(made["Id"])

    async def inspect(self, container: str) -> Container | None:
        """By name or identity."""
        try:
            async with _told():
                found = await self._docker.containers.get(container)
        except EngineError as error:
            if error.absent:
                return None
            raise
        state = found["State"]
        return Container(
            identity=str(found["Id"]),
            labels=found["Config"]["Labels"] or {},
            running=bool(state["Running"]),
            paused=bool(state["Paused"]),
            pid=int(state["Pid"]),
            started=_seconds(str(state["StartedAt"])),
        )

    async def containers(self, label: str) -> list[Container]:
        """All that have the label `name=value`."""
        async with _told():
            filters = json.dumps({"label": [label]})
            found = await self._docker.containers.list(all="1", filters=filters)
        return [
            Container(
                identity=str(each["Id"]),
                labels=each["Labels"] or {},
                running=each["State"] in ("running", "paused"),
                paused=each["State"] == "paused",
                started=float(each["Created"]),
            )
            for each in found
        ]

    async def kill(self, container: str) -> None:
        """Returns before it has ended. One that does not run is no error."""
        async with _told(409):
            await self._docker.containers.container(container).kill()

    async def remove(self, container: str) -> None:
        """Kill and remove it, and what it had of its own; one that is not there is no error."""
        async with _told(404):
            await self._docker.containers.container(container).delete(force=True, v=True)

    async def pause(self, container: str) -> None:
        """One that is paused is no error."""
        async with _told():
            await self._docker.containers.container(container).pause()

    async def unpause(self, container: str) -> None:
        async with _told():
            await self._docker.containers.container(container).unpause()

    async def last_words(self, container: str) -> str:
        async with _told(404):
            lines = await self._docker.containers.container(container).log(
                stdout=True, stderr=True, tail=_LAST_WORDS
            )
            return "".join(lines).strip()
        return ""

    async def make_volume(
        self, name: str, options: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        wanted = {"Name": name, "Driver": "local", "DriverOpts": options, "Labels": labels}
        async with _told():
            await self._volumes.create(wanted)

    async def volumes(self, label: str) -> list[str]:
        """Names of those that have the label `name=value`."""
        async with _told():
            found = await self._volumes.list(filters={"label": [label]})
        return [str(each["Name"]) for each in found["Volumes"] or ()]

    async def remove_volume(self, name: str) -> None:
        """One that is not there is no error."""
        async with _told(404):
            await (await self._volumes.get(name)).delete()

    @asynccontextmanager
    async def _answer(
        self,
        path: str,
        method: str,
        params: Mapping[str, str],
        timeout: aiohttp.ClientTimeout = _USUAL,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is read as it comes; what is left of it after the block is not."""
        query = self._docker._query(path, method, params=dict(params), timeout=timeout)  # noqa: SLF001
        async with _told(), query as answer:
            with closing(answer):
                yield answer


@asynccontextmanager
async def _told(*fine: int) -> AsyncIterator[None]:
    """What goes wrong in the block, in our own words; nothing where the status is `fine`."""
    try:
        yield
    except DockerError as error:
        if error.status == _NOBODY:
            raise EngineAway(error.message) from error
        if error.status not in fine:
            raise EngineError(error.status, error.message) from error
    except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise EngineAway(str(error) or type(error).__name__) from error


async def _beginning(content: aiohttp.StreamReader, most: int) -> bytes:
    data = b""
    while len(data) < most and (piece := await content.read(most - len(data))):
        data += piece
    return data


def _first_file(data: bytes, most: int) -> bytes:
    """What the beginning of a tar has of the first file in it, where that is one."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            first = archive.next()
    except (tarfile.TarError, ValueError):  # Marks of a file are words of whoever made the image.
        return b""
    if first is None or not first.isreg():
        return b""
    return data[first.offset_data : first.offset_data + min(first.size, most)]


def _seconds(text: str) -> float:
    """Since 1970, of a time that may have more digits than a datetime."""
    try:
        plain = _FRACTION.sub(lambda match: f".{match[1]:0<6}", text.replace("Z", "+00:00"))
        return datetime.fromisoformat(plain).timestamp()
    except ValueError:
        return 0.0
