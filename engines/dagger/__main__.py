"""The stand-in of the driver `dagger`: `python -m engines.dagger --runtime DIR --state DIR`."""

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
from pathlib import Path

from agent.standin.server import Server
from engines.dagger.heads import DRIVER
from engines.dagger.serving import Late
from engines.dagger.settings import Settings


def main() -> int:
    options = _options()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    options.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = options.state / DRIVER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        settings = Settings.from_env(os.environ, folder, options.runtime, options.node)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    os.umask(0o077)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # Some for each directory of a path.
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    late = Late(settings)
    server = Server(DRIVER, settings.runtime, late, late.verbs())
    try:
        await stop.wait()
    finally:
        await server.close()
        await late.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engines.dagger", description=__doc__)
    parser.add_argument("--runtime", type=_absolute, required=True, metavar="DIR", help="sockets")
    parser.add_argument("--state", type=_absolute, required=True, metavar="DIR")
    parser.add_argument("--node", required=True)
    return parser.parse_args()


def _absolute(text: str) -> Path:
    return Path(text).absolute()


if __name__ == "__main__":
    sys.exit(main())
