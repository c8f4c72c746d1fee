"""Runs what a sub-command is made of, which is imported only then."""

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import Any

from cove.cli.console import Console


def loaded(handler: str) -> Callable[..., Any]:
    """The function `module:function` of `cove.cli`."""
    module, _, name = handler.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"cove.cli.{module}"), name)
    return found


def locally(handler: str, options: argparse.Namespace) -> int:
    """Run a function of options and console, which returns the exit status."""
    status: int = loaded(handler)(options, _console(options))
    return status


def with_client(handler: str, options: argparse.Namespace) -> int:
    """Run a coroutine function of client, options and console; a failed call is told."""
    import asyncio

    from cove.client import Client
    from cove.status import CoveError

    console = _console(options)

    async def run() -> int:
        async with Client(
            options.address, state=options.state, acting_for=options.tenant
        ) as client:
            status: int = await loaded(handler)(client, options, console)
            return status

    try:
        return asyncio.run(run())
    except CoveError as error:
        console.failed(error)
        return 1


def _console(options: argparse.Namespace) -> Console:
    console = Console.standard()
    console.as_json = getattr(options, "json", False)
    return console
