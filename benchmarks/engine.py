"""A Docker engine of our own, spoken to over its API as `docker` does it, less the command line."""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.compose.daemon import daemon
from tests.compose.machine import Cannot, make_base, require_root

IMAGE: Final = "bench"
_FOREVER: Final = ("sleep", "86400")


@dataclass(frozen=True, slots=True)
class Engine:
    socket: Path

    async def create(self) -> str:
        """A container without network that does nothing; its id."""
        wanted = {"Image": IMAGE, "Cmd": _FOREVER, "HostConfig": {"NetworkMode": "none"}}
        answer = json.loads(await self._call("POST", "/containers/create", wanted))
        return str(answer["Id"])

    async def start(self, container: str) -> None:
        await self._call("POST", f"/containers/{container}/start")

    async def execute(self, container: str, *argv: str, detach: bool = False) -> int:
        """Its exit code; of one that is detached 0 at once."""
        wanted: dict[str, Any] = {"Cmd": argv, "AttachStdout": not detach}
        made = json.loads(await self._call("POST", f"/containers/{container}/exec", wanted))
        path = f"/exec/{made['Id']}"
        await self._call("POST", f"{path}/start", {"Detach": detach})
        if detach:
            return 0
        return int(json.loads(await self._call("GET", f"{path}/json"))["ExitCode"])

    async def kill(self, container: str) -> None:
        await self._call("POST", f"/containers/{container}/kill")

    async def remove(self, container: str) -> None:
        await self._call("DELETE", f"/containers/{container}?force=1")

    def shims(self) -> list[int]:
        """Pids of what stays beside each container."""
        address = f"{self.socket.parent}/".encode()
        found = []
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = each.read_bytes()
                if b"containerd-shim" in line.split(b"\0")[0] and address in line:
                    found.append(int(each.parent.name))
        return found

    async def _call(self, method: str, path: str, body: Any = None) -> bytes:
        """In HTTP/1.0, which ends what it answers by closing. Raises RuntimeError."""
        data = json.dumps(body).encode() if body is not None else b""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            head = f"{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Length: {len(data)}\r\n"
            writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
            said, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        if not said.split(b" ")[1].startswith(b"2"):
            raise RuntimeError(f"{method} {path}: {said.decode()} {answer.decode()}")
        return answer


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[Engine | None]:
    """With an image made by debootstrap, or of COVE_BASE_TAR; None, and why, where there is none.

    It has no bridge and no packet filter, and keeps all below `folder`.
    """
    with contextlib.ExitStack() as stack:
        try:
            require_root("dockerd", "docker", "debootstrap", "tar")
            folder.mkdir()
            make_base(folder / "base", packages=())
            options = ("--bridge", "none", "--iptables=false", "--ip6tables=false")
            address = stack.enter_context(daemon(folder / "docker", *options))
        except Cannot as error:
            print(f"\nno Docker engine, nothing is compared with it: {error}")
            yield None
            return
        _import(address, folder / "base")
        yield Engine(Path(address.removeprefix("unix://")))


def _import(address: str, base: Path) -> None:
    command = f"tar -C '{base}' -c . | docker --host '{address}' import - {IMAGE}"
    subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL, env=os.environ)
