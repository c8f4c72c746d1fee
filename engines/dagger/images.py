"""Makes what environments begin with: an image, and commands that are run on it once.

Both are cached by the engine, by content: the second environment with the same costs no command.
The result can be exported as a tar, which every driver that takes images can load.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import dagger

from engines.dagger.connection import telling
from engines.dagger.errors import (
    CommandLost,
    EngineUnavailable,
    ImageNotFound,
    PathNotFound,
    SetupFailed,
)

_LOCAL: Final = re.compile(r"(tar|rootfs):([A-Za-z0-9][A-Za-z0-9._-]{0,127})")
_SHELL: Final = "/bin/sh"
USER: Final = "60900:60900"
"""As whom commands run; the setup runs as root."""
_FOLDERS: Final = (
    "mkdir -p /workspace /home/cove /tmp /.cove && chmod 1777 /tmp && chmod 0700 /.cove"
    f" && chown {USER} /workspace /home/cove /.cove"
)
_TAIL: Final = 2000


class Builder:
    """Builds on one engine. `images` has what is not in a registry.

    An image is a reference, as `docker pull` takes it; or `tar:NAME`, a tar of OCI or Docker, or
    `rootfs:NAME`, a directory, both in `images`, where only the operator puts anything.
    """

    def __init__(self, client: dagger.Client, images: Path) -> None:
        self._client = client
        self._images = images

    async def resolve(self, image: str) -> str:
        """The image by its digest, so that it is the same for ever.

        Raises ImageNotFound, ImageDenied, EngineUnavailable.
        """
        if not image:
            raise EngineUnavailable(
                "no image is named, and there is no default",
                "Name one in the spec, or set COVE_DAGGER__IMAGE.",
            )
        if _LOCAL.fullmatch(image):
            self._local(image)
            return image
        if ":" in image.split("/", 1)[0] and image.split(":", 1)[0] in ("tar", "rootfs"):
            raise ImageNotFound("not the name of an image on this node")
        if "@sha256:" in image:
            return image
        try:
            with telling():
                return await self._client.container().from_(image).image_ref()
        except PathNotFound as error:
            raise ImageNotFound(str(error)) from error

    def base(self, digest: str, setup: Sequence[str]) -> dagger.Container:
        """The container after the setup; nothing is done before it is asked for."""
        container = self._from(digest).with_user("0:0").with_exec([_SHELL, "-c", _FOLDERS])
        for command in setup:
            container = container.with_exec([_SHELL, "-c", command])
        return container

    async def built(self, digest: str, setup: Sequence[str]) -> dagger.Container:
        """As `base`, done. Raises SetupFailed, ImageNotFound, ImageDenied, EngineUnavailable."""
        try:
            with telling():
                return await self.base(digest, setup).sync()
        except CommandLost as error:
            tail = (error.errors or error.output)[-_TAIL:].decode(errors="replace")
            raise SetupFailed("a command of the setup failed", error.code, tail) from error
        except PathNotFound as error:
            raise ImageNotFound(f"it is not there, or has no {_SHELL}: {error}") from error

    async def export(self, digest: str, setup: Sequence[str], path: Path, *, docker: bool) -> None:
        """Write the image after the setup to a tar: of OCI, or as `docker load` reads it."""
        built = await self.built(digest, setup)
        media = (
            dagger.ImageMediaTypes.DockerMediaTypes
            if docker
            else dagger.ImageMediaTypes.OCIMediaTypes
        )
        with telling():
            await built.with_workdir("/workspace").as_tarball(media_types=media).export(str(path))

    def _from(self, digest: str) -> dagger.Container:
        if not _LOCAL.fullmatch(digest):
            return self._client.container().from_(digest)
        path, kind = self._local(digest), digest.partition(":")[0]
        if kind == "tar":
            return self._client.container().import_(self._client.host().file(str(path)))
        return self._client.container().with_rootfs(self._client.host().directory(str(path)))

    def _local(self, image: str) -> Path:
        found = _LOCAL.fullmatch(image)
        assert found is not None
        kind, name = found.groups()
        path = (self._images / name).resolve()
        right = path.is_file() if kind == "tar" else path.is_dir()
        if path.parent != self._images.resolve() or not right:
            raise ImageNotFound(f"this node has no {kind} of that name")
        return path
