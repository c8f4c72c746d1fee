"""Containers of ours at an engine: whose each is, and what is in it."""

from typing import Final

import dagger

from engines.dagger.errors import EngineDefect
from engines.dagger.heads import Head, Record

ENV: Final = "AE_ENV"
GENERATION: Final = "AE_GEN"
"""Variables of every container of ours: whose it is, and which. They also make each call unlike
all before, so that none is answered from the cache, but the same call sent again is."""
WORKSPACE: Final = "/workspace"
_ANCHOR: Final = "/.cove/environment"
GIT: Final = ".git"


def container_of(client: dagger.Client, head: Head) -> dagger.Container:
    """By its name at the engine, which may be another's by now: verify it."""
    return dagger.Container(client._ctx.select_id("Container", head.container))  # noqa: SLF001


def worktree(client: dagger.Client, record: Record) -> dagger.Directory:
    return client.host().directory(record.tree, exclude=[GIT], no_cache=True)


def identified(container: dagger.Container, head: Head) -> dagger.Container:
    return container.with_env_variable(ENV, f"{head.uid}.{head.epoch}").with_env_variable(
        GENERATION, str(head.generation)
    )


def marked(container: dagger.Container, head: Head) -> dagger.Container:
    """With its identity, and a last step that the engine keeps when the session is over."""
    return identified(container, head).with_new_file(
        _ANCHOR, f"{head.uid} {head.epoch} {head.generation}\n"
    )


async def kept(container: dagger.Container) -> str:
    """Do it, and give its name. Raises EngineDefect, and what the SDK raises."""
    found = await (await container.sync()).id()
    if not found:
        raise EngineDefect("the engine gave no name")
    return str(found)
