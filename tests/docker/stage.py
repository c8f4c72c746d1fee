"""A provider and an executor over an engine of the test's own, with worktrees as git makes them."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import grpc

from agent import SANDBOX_UID
from cove.mount.v1 import mount_pb2
from cove.provider.v1 import provider_pb2 as pb
from cove.provider.v1.provider_pb2_grpc import ProviderServiceStub
from services.executor.app import executor
from services.executor.config import Config as ExecutorConfig
from services.provider.app import provider
from services.provider.config import Config
from tests.docker.images import BARE
from tests.executor.node import ALPHABET, OPTIONS, Caller, Sandbox

NODE: Final = "n1"
_FOREVER: Final = ("sleep", "100000")


@dataclass(frozen=True)
class Docker:
    """An engine, by its command line: what the driver says of it is compared with this."""

    socket: Path

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            ["docker", "--host", self.address, *argv], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"docker {' '.join(argv)}: {done.stderr}"
        return done.stdout.strip()

    def inspect(self, uid: str) -> dict[str, Any]:
        return dict(json.loads(self.run("inspect", f"cove-{uid}"))[0])

    def names(self) -> set[str]:
        """Of all containers and volumes that are there."""
        found = (
            self.run("ps", "-a", "--format", "{{.Names}}") + "\n" + self.run("volume", "ls", "-q")
        )
        return {name for name in found.split() if name.startswith("cove-")}


@dataclass
class Place:
    """The directories of a node."""

    folder: Path
    docker: Docker

    @property
    def state(self) -> Path:
        return self.folder / "s"

    @property
    def runtime(self) -> Path:
        return self.folder / "r"

    def plain(self, uid: str) -> mount_pb2.Mount:
        """A worktree that is one directory."""
        (self.state / "git/worktrees" / uid / "tree").mkdir(parents=True, exist_ok=True)
        _give(self.state / "git/worktrees" / uid / "tree")
        return mount_pb2.Mount(
            version=2,
            mode=mount_pb2.Mount.MODE_PLAIN,
            worktree=f"git/worktrees/{uid}/tree",
            objects=self._objects(),
        )

    def layers(self, uid: str) -> mount_pb2.Mount:
        """An overlay with a file `d/f` in its lower layer."""
        home = self.state / "git/worktrees" / uid
        lower = self.state / "git/checkouts/t/k/c"
        (lower / "d").mkdir(parents=True, exist_ok=True)
        (lower / "d/f").write_text("lower\n")
        for name in ("upper", "work", "outside"):
            (home / name).mkdir(parents=True)
        (home / "lock").touch(mode=0o600)
        (home / "outside/head").write_text("{}")
        for path in (home / "upper", home / "work", lower, lower / "d", lower / "d/f"):
            _give(path)
        (self.state / "git/layers").mkdir(exist_ok=True)
        return mount_pb2.Mount(
            version=2,
            mode=mount_pb2.Mount.MODE_OVERLAY,
            objects=self._objects(),
            lowers=["git/checkouts/t/k/c"],
            upper=f"git/worktrees/{uid}/upper",
            work=f"git/worktrees/{uid}/work",
            xattrs=mount_pb2.Mount.XATTRS_TRUSTED,
            lock=f"git/worktrees/{uid}/lock",
            outside=f"git/worktrees/{uid}/outside",
            stack=f"git/worktrees/{uid}/stack",
            layers="git/layers",
        )

    def _objects(self) -> str:
        (self.state / "git/repositories/t/k.git/objects").mkdir(parents=True, exist_ok=True)
        return "git/repositories/t/k.git/objects"


@dataclass
class Stage(Place):
    """The same, with a provider and an executor."""

    stub: ProviderServiceStub
    caller: Caller

    async def provision(
        self, mount: mount_pb2.Mount | None = None, uid: str = "", **spec: Any
    ) -> Sandbox:
        """A new environment, dormant; of a plain worktree and the bare image unless told."""
        uid = uid or new_uid()
        request = pb.ProvisionEnvironmentRequest(
            uid=uid,
            spec=pb.Spec(driver="docker", **{"image": BARE} | spec),
            mount=mount or self.plain(uid),
        )
        made = await self.stub.ProvisionEnvironment(request)
        tree = self.state / "git/worktrees" / uid / ("upper" if mount else "tree")
        return Sandbox(uid, made.handle, tree)

    async def activate(self, box: Sandbox) -> bool:
        request = pb.ActivateEnvironmentRequest(handle=box.handle)
        return (await self.stub.ActivateEnvironment(request)).started

    async def active(self, mount: mount_pb2.Mount | None = None, **spec: Any) -> Sandbox:
        box = await self.provision(mount, **spec)
        assert await self.activate(box)
        return box

    async def inspect(self, box: Sandbox) -> pb.Observation:
        request = pb.InspectEnvironmentRequest(handle=box.handle)
        return (await self.stub.InspectEnvironment(request)).observation

    async def release(self, box: Sandbox) -> bool:
        request = pb.ReleaseEnvironmentRequest(uid=box.uid)
        return (await self.stub.ReleaseEnvironment(request)).existed

    async def said(self, box: Sandbox, script: str, **spec: Any) -> str:
        """What a script writes to standard output, when it ends well."""
        done = await self.caller.execute(box, script, **spec)
        assert done.execution.exit.WhichOneof("reason") == "code", done
        assert done.execution.exit.code == 0, done
        return done.stdout.text

    @property
    def identity(self) -> str:
        """Of the state directory."""
        return (self.state / "provider/docker/identity").read_text()

    @contextlib.contextmanager
    def stranger(self, name: str, **labels: str) -> Iterator[None]:
        """A container with the name of an environment's, and its labels but for those given."""
        has = {"uid": name, "state": self.identity, "schema": "1", **labels}
        words = [word for key in has for word in ("--label", f"dev.cove.{key}={has[key]}")]
        name = f"cove-{name}"
        self.docker.run("run", "-d", "--name", name, *words, "--network=none", BARE, *_FOREVER)
        try:
            yield
        finally:
            self.docker.run("rm", "-f", name)

    def everything(self) -> pb.ListProvisionedRequest:
        return pb.ListProvisionedRequest(page_size=1000)

    def releasing(self, uid: str) -> pb.ReleaseEnvironmentRequest:
        return pb.ReleaseEnvironmentRequest(uid=uid)


def new_uid() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(16))


@contextlib.contextmanager
def place(docker: Docker) -> Iterator[Place]:
    """Directories of a node, which are removed with all that the engine has of them."""
    folder = Path(tempfile.mkdtemp(prefix="cd", dir="/tmp"))
    made = Place(folder, docker)
    for each in (made.state, made.runtime):
        each.mkdir(mode=0o700)
    try:
        yield made
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def serving(where: Place, **settings: Any) -> AsyncIterator[Stage]:
    values: dict[str, Any] = {"drivers": ("docker",), "docker_socket": where.docker.socket}
    values |= {"node": NODE, "disk_limit": 1, **settings}
    config = Config(state=where.state, runtime=where.runtime, **values)
    other = ExecutorConfig(
        state=where.state,
        runtime=where.runtime,
        drivers=("docker",),
        node=NODE,
        heartbeat=timedelta(seconds=0.2),
        disk_limit=1.1,
    )
    async with (
        provider(config) as served,
        executor(other) as executing,
        grpc.aio.insecure_channel(served.address) as channel,
        grpc.aio.insecure_channel(executing.address, options=OPTIONS) as second,
    ):
        stub, caller = ProviderServiceStub(channel), Caller(second)
        yield Stage(where.folder, where.docker, stub, caller)


def _give(path: Path) -> None:
    os.chown(path, SANDBOX_UID, SANDBOX_UID)
