"""Work in a thread, with what its caller closes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def aside(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread. Who is cancelled waits for the thread, and may then close what it used.

    No task does it, so that the end of the loop cancels nothing but the caller.
    """
    context = copy_context()
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, lambda: context.run(call, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((work,))
        work.exception()  # Nobody wants to know.
        raise
