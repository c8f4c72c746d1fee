"""What the tests of the dagger driver stand on: an engine, and environments on it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from engines.dagger import shim
from engines.dagger.command import Ran
from engines.dagger.environments import Environments
from engines.dagger.heads import Head, Heads
from engines.dagger.pool import Engines
from engines.dagger.preview import Listener
from engines.dagger.settings import Settings
from tests.drivers.dagger_double.process import DoubleEngine, executable

NODE = "node-1"
TENANT = "default"


@dataclass
class Bench:
    """A node with one engine or more."""

    settings: Settings
    engines: Engines
    environments: Environments
    folder: Path

    def tree(self, name: str = "tree", **files: str) -> str:
        """A worktree; in names of files `_` stands for a dot."""
        tree = self.folder / name
        tree.mkdir()
        for each, content in files.items():
            (tree / each.replace("_", ".")).write_text(content)
        return str(tree)

    async def create(
        self,
        uid: str,
        tree: str,
        *,
        image: str = "",
        setup: tuple[str, ...] = (),
        rebuild: bool = False,
    ) -> Head:
        image = image or self.settings.image or "base"
        return await self.environments.create(uid, TENANT, image, setup, tree, rebuild=rebuild)

    async def run(
        self, uid: str, script: str, *, handle: bytes = b"", timeout: float = 0
    ) -> "Done":
        """Run a script as the stand-in does, and read what it wrote."""
        environments = self.environments
        argv = shim.argv(["sh", "-c", script], {}, "/workspace", timeout=timeout, merge=False)
        async with environments.writing(uid), environments.scratch() as folder:
            head = await environments.opened(uid, handle)
            run = await environments.run(head, argv)
            ran = await run.wait(folder)
            return Done(ran, ran.out.read_bytes(), ran.err.read_bytes())

    async def preview(self, uid: str, command: list[str], listener: Listener) -> None:
        """Run a command, and have `listener` hear it."""
        environments = self.environments
        argv = shim.argv(command, {}, "/workspace", timeout=0, merge=False)
        async with environments.writing(uid), environments.scratch() as folder:
            run = await environments.run(await environments.opened(uid), argv)
            await run.wait(folder, listener)


@dataclass
class Done:
    ran: Ran
    out: bytes
    err: bytes

    @property
    def head(self) -> Head:
        return self.ran.head


@asynccontextmanager
async def bench(folder: Path, *engines: DoubleEngine, **settings: object) -> AsyncIterator[Bench]:
    folder.mkdir(parents=True, exist_ok=True)
    made = Settings(
        state=folder / "state",
        runtime=folder,
        node=NODE,
        engines={f"engine-{number}": each.address for number, each in enumerate(engines, 1)},
        cli=executable(folder),
    )
    made = replace(made, **settings)  # type: ignore[arg-type]
    made.state.mkdir(mode=0o700, exist_ok=True)
    opened = Engines(made)
    try:
        heads = Heads(made.state / "environments")
        yield Bench(made, opened, Environments(made, opened, heads), folder)
    finally:
        await opened.close()
