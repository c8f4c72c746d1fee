"""An engine that has what anybody may have put into a registry, as the driver docker takes it."""

import asyncio
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from services.provider.drivers.docker.engine import Engine
from services.provider.drivers.docker.images import Images
from services.provider.errors import ImageUnavailable

MOST = 1 << 16
HUGE = 1 << 40
"""Bytes that a file says it has."""


class _Served:
    """An engine: of containers it has one file, and its fetches have no end."""

    def __init__(self, content: bytes, size: int = 0, kind: bytes = tarfile.REGTYPE) -> None:
        file = tarfile.TarInfo("passwd")
        file.size, file.type, file.linkname = size, kind, "/etc/shadow" * (kind == tarfile.SYMTYPE)
        self._header = file.tobuf()
        self._content = content
        self.sent = 0

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41"})

    async def archive(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
        await answer.prepare(request)
        await answer.write(self._header + self._content)
        self.sent = len(self._content)
        try:
            while self.sent < HUGE:  # Zeros compress well: that is a small image.
                await answer.write(bytes(1 << 20))
                self.sent += 1 << 20
        except ConnectionError:
            pass
        return answer

    async def pull(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        await answer.write(b'{"status": "Pulling"}\r\n')
        await asyncio.Event().wait()
        return answer

    async def nothing(self, _: web.Request) -> web.Response:
        return web.json_response({"message": "no such image"}, status=404)


@asynccontextmanager
async def engine(folder: Path, served: _Served) -> AsyncIterator[Engine]:
    app = web.Application()
    app.router.add_get("/version", served.version)
    app.router.add_get("/v1.41/containers/{id}/archive", served.archive)
    app.router.add_post("/v1.41/images/create", served.pull)
    app.router.add_get("/v1.41/images/{name:.*}/json", served.nothing)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "engine")).start()
    try:
        async with Engine.open(folder / "engine") as made:
            yield made
    finally:
        await runner.cleanup()


async def test_of_a_list_of_users_without_end_the_beginning_is_read(tmp_path: Path) -> None:
    served = _Served(b"root:x:0:0::/:/bin/sh\n", HUGE)
    async with engine(tmp_path, served) as found:
        data = await found.read("any", "/etc/passwd", MOST)
        assert len(data) == MOST
        assert data.startswith(b"root:x:0:0::/:/bin/sh\n")
        assert served.sent < 1 << 26  # No more than what sockets held.


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE])
async def test_what_is_no_file_is_not_read(tmp_path: Path, kind: bytes) -> None:
    async with engine(tmp_path, _Served(b"", kind=kind)) as found:
        assert await found.read("any", "/etc/passwd", MOST) == b""


async def test_a_fetch_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    async with engine(tmp_path, _Served(b"")) as found:
        images = Images(found, tmp_path, patience=0.5)
        with pytest.raises(ImageUnavailable, match="in time"):
            await images.resolve("registry.example/slow:1")
