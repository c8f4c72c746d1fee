"""Provider over a real launcher, with worktrees as git would make them."""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from cove.mount.v1 import mount_pb2
from cove.provider.v1 import provider_pb2 as pb
from cove.provider.v1.provider_pb2_grpc import ProviderServiceStub
from services.provider.app import provider
from services.provider.config import Config
from tests.agent import node as nodes


@dataclass
class Suite:
    node: nodes.Node
    stub: ProviderServiceStub

    @property
    def state(self) -> Path:
        return self.node.folder / "s"

    def worktree(self, uid: str) -> mount_pb2.Mount:
        """Directories as git makes them."""
        home = self.state / "git" / "worktrees" / uid
        objects = self.state / "git" / "repositories" / "t" / "k.git" / "objects"
        (home / "view").mkdir(parents=True, exist_ok=True)
        (home / "view" / "HEAD").write_text("ref: refs/heads/main\n")
        (home / "tree" / ".git").mkdir(parents=True, exist_ok=True)
        objects.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(home / "tree", self.node.sandbox_uid, self.node.sandbox_uid)
        return mount_pb2.Mount(
            version=1,
            mode=mount_pb2.Mount.MODE_PLAIN,
            worktree=f"git/worktrees/{uid}/tree",
            git_view=f"git/worktrees/{uid}/view",
            objects="git/repositories/t/k.git/objects",
        )

    def layers(self, uid: str) -> mount_pb2.Mount:
        """An overlay as git makes it."""
        home = self.state / "git" / "worktrees" / uid
        lower = self.state / "git" / "checkouts" / "t" / "k" / "c"
        objects = self.state / "git" / "repositories" / "t" / "k.git" / "objects"
        (lower / "d").mkdir(parents=True, exist_ok=True)
        (lower / "d" / "f").write_text("lower\n")
        for name in ("upper", "work", "outside"):
            (home / name).mkdir(parents=True, exist_ok=True)
        (home / "lock").touch()
        (home / "outside" / "head").write_text("{}")
        objects.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            for path in (home / "upper", home / "work", lower, lower / "d", lower / "d" / "f"):
                os.chown(path, self.node.sandbox_uid, self.node.sandbox_uid)
        root = self.node.mode == "root"
        return mount_pb2.Mount(
            version=2,
            mode=mount_pb2.Mount.MODE_OVERLAY,
            objects="git/repositories/t/k.git/objects",
            lowers=["git/checkouts/t/k/c"],
            upper=f"git/worktrees/{uid}/upper",
            work=f"git/worktrees/{uid}/work",
            xattrs=mount_pb2.Mount.XATTRS_TRUSTED if root else mount_pb2.Mount.XATTRS_USER,
            lock=f"git/worktrees/{uid}/lock",
            outside=f"git/worktrees/{uid}/outside",
            stack=f"git/worktrees/{uid}/stack",
            layers="git/layers",
        )

    async def provisioned(
        self, uid: str, mount: mount_pb2.Mount | None = None, **spec: int
    ) -> bytes:
        """The handle of a new environment, of a plain worktree unless another is given."""
        made = await self.stub.ProvisionEnvironment(
            pb.ProvisionEnvironmentRequest(
                uid=uid,
                spec=pb.Spec(limits=pb.Limits(**spec)),
                mount=mount or self.worktree(uid),
            )
        )
        return made.handle


@pytest.fixture(scope="session")
def node() -> Iterator[nodes.Node]:
    """As whoever runs the tests: provider and launcher are one user's."""
    yield from nodes.make("root" if os.getuid() == 0 else "user")


@pytest.fixture
def own_node() -> Iterator[nodes.Node]:
    yield from nodes.make("root" if os.getuid() == 0 else "user")


@pytest.fixture
async def suite(node: nodes.Node) -> AsyncIterator[Suite]:
    async with serving(node) as found:
        yield found


@asynccontextmanager
async def serving(node: nodes.Node, /, **settings: object) -> AsyncIterator[Suite]:
    config = Config(
        state=node.folder / "s",
        runtime=node.runtime,
        binds=(Path(sys.base_prefix),),
        **settings,  # type: ignore[arg-type]
    )
    async with (
        node.launcher(),
        provider(config) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        yield Suite(node, ProviderServiceStub(channel))
