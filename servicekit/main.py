"""The `main` of every service."""

import asyncio
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, TypeVar

from servicekit import heap, logs
from servicekit.config import ConfigError, ServerConfig, StartError
from servicekit.server import Served
from servicekit.sockets import AddressError

_log = logging.getLogger(__name__)

C = TypeVar("C", bound=ServerConfig)

_MISCONFIGURED: Final = 2
_CANNOT_START: Final = 1


def main(
    load: Callable[[Mapping[str, str]], C],
    app: Callable[[C], AbstractAsyncContextManager[Served]],
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> int:
    """Run `app` in a `loop` until SIGINT or SIGTERM. Returns the exit status.

    When it serves, one line of JSON on the standard output says where. 2: the
    config is wrong; 1: it cannot start; both are told on the standard error.
    """
    _never_dumped()
    try:
        config = load(os.environ)
        logs.set_up(config.service, config.log_level)
        heap.set_up()
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(_run(config.service, app(config)))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return _MISCONFIGURED
    except (AddressError, StartError) as error:
        sys.stderr.write(f"{error}\n")
        return _CANNOT_START
    return 0


def _never_dumped() -> None:
    """A core would have every secret that passes through here. A limit of 1, too small for any,
    also keeps the kernel from handing one to a program, which 0 does not: see core(5)."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 0 if most == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


async def _run(service: str, app: AbstractAsyncContextManager[Served]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with app as served:
        # What is there for good is not looked through again by each collection, which stops all.
        gc.collect()
        gc.freeze()
        gc.enable()  # Whoever started it may have left that until now.
        ready = {"service": service, "addresses": served.addresses}
        line = json.dumps(ready | ({"http": served.http} if served.http else {}))
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        _notify("READY=1")
        _log.info("serving", extra={"fields": {"addresses": served.addresses}})
        await stop.wait()
        _notify("STOPPING=1")
        _log.info("stopping")


def _notify(state: str) -> None:
    """Tell systemd, where it asks for that (`Type=notify`). It only informs."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path.startswith(("/", "@")):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.sendto(state.encode(), path.replace("@", "\0", 1))
