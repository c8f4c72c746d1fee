"""What a shell may complete arguments to. Whatever fails offers nothing, and says nothing."""

import argparse
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # It takes a while to import.
    from cove.client import Client

_PATIENCE: Final = 1.0
"""Seconds that a person waits for a completion."""


def workspaces(parsed_args: argparse.Namespace, **_: Any) -> Sequence[str]:
    """Ids of the workspaces that are not named yet."""
    named = getattr(parsed_args, "workspace", None)
    given = named if isinstance(named, list) else []
    return [each for each in _asked(parsed_args, _workspaces) if each not in given]


def deleted(parsed_args: argparse.Namespace, **_: Any) -> Sequence[str]:
    """Ids of the workspaces that can be brought back."""
    return _asked(parsed_args, _deleted)


def executions(parsed_args: argparse.Namespace, **_: Any) -> Sequence[str]:
    """Ids of the executions of the workspace that was named."""
    return _asked(parsed_args, _executions, parsed_args.workspace)


def paths(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Sequence[str]:
    """Local paths, and `WORKSPACE:`."""
    from argcomplete.completers import FilesCompleter

    local = list(FilesCompleter()(prefix))
    if "/" in prefix or ":" in prefix:
        return local
    return [*local, *(f"{each}:" for each in workspaces(parsed_args))]


def folders(prefix: str, **_: Any) -> Sequence[str]:
    """Local directories."""
    from argcomplete.completers import DirectoriesCompleter

    return list(DirectoriesCompleter()(prefix))


def ranges(**_: Any) -> Sequence[str]:
    """What is compared most often."""
    return ("head..work", "base..work", "base..head")


def signals(**_: Any) -> Sequence[str]:
    """The signals that can be sent."""
    from cove.executor.v1.executor_pb2 import Signal

    return [name.removeprefix("SIGNAL_") for name in Signal.keys()[1:]]


def nothing(**_: Any) -> Sequence[str]:
    """What only the workspace knows."""
    return ()


def by_type(prefix: str, action: argparse.Action, **_: Any) -> Sequence[str]:
    """Of an argument that has no completer of its own."""
    from argcomplete.completers import FilesCompleter

    return list(FilesCompleter()(prefix)) if action.type is Path else ()


def _asked(
    options: argparse.Namespace, ask: Callable[..., AsyncIterator[str]], *arguments: str
) -> list[str]:
    import asyncio

    from cove.client import Client
    from cove.status import CoveError

    async def answer() -> list[str]:
        async with (
            asyncio.timeout(_PATIENCE),
            Client(
                options.address, state=options.state, patience=0, acting_for=options.tenant
            ) as cove,
        ):
            return [each async for each in ask(cove, *arguments)]

    try:
        return asyncio.run(answer())
    except (CoveError, OSError, TimeoutError):
        return []


async def _workspaces(cove: "Client") -> AsyncIterator[str]:
    async for each in cove.workspaces.list():
        yield each.id


async def _deleted(cove: "Client") -> AsyncIterator[str]:
    async for each in cove.workspaces.list(show_deleted=True):
        if each.message.HasField("delete_time"):
            yield each.id


async def _executions(cove: "Client", workspace: str) -> AsyncIterator[str]:
    async for each in cove.workspaces.named(workspace).executions.list():
        yield each.id
