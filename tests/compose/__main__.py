"""Builds the images, brings the suite up in containers, uses it, restarts it, removes all.

Exits with 0 and says why where the machine cannot do that. Variables: COMPOSE, the docker-compose
to use; COVE_BASE_TAR, a root file system to use as base; DEBIAN_MIRROR.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cove.client import Client
from tests.compose import drivers
from tests.compose.daemon import SERVICES, Suite, daemon, image, running, up
from tests.compose.drive import Published, drive
from tests.compose.machine import (
    Cannot,
    isolate,
    make_base,
    make_context,
    pack_bases,
    require,
    say,
)


def main() -> int:
    compose = os.environ.get("COMPOSE") or "docker-compose"
    folder = Path(tempfile.mkdtemp(prefix="cove-compose-"))
    began = time.monotonic()
    try:
        require(compose)
        _run(folder, compose)
    except Cannot as error:
        say(f"the suite in containers was NOT tested: {error}")
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            say(f"{folder} could not be removed")
    say(f"the suite runs in containers ({time.monotonic() - began:.0f} s)")
    return 0


def _run(folder: Path, compose: str) -> None:
    base, context, repositories = (folder / each for each in ("base", "context", "repositories"))
    make_base(base)
    make_context(context, base)
    bases = pack_bases(base, folder / "bases")
    repository = _repository(repositories)
    isolate()
    with daemon(folder / "docker") as address:
        grpc, http = _port(), _port()
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "DOCKER_HOST": address,
            **{name: image(name) for name in bases},
            "COVE_REPOSITORIES": str(repositories),
            "COVE_GRPC_PORT": str(grpc),
            "COVE_HTTP_PORT": str(http),
        }
        suite = Suite(context, compose, env)
        with up(suite, bases):
            token = (context / "deploy/secrets/token").read_text().strip()
            published = Published(grpc=f"127.0.0.1:{grpc}", http=f"127.0.0.1:{http}", token=token)
            say("all containers are healthy")
            asyncio.run(drive(suite, published, repository))
        env |= drivers.ENV | {"COVE_DOCKER_SOCKET": address.removeprefix("unix://")}
        suite = Suite(context, compose, env, drivers.OPTIONS, (*SERVICES, "dagger"))
        drivers.make_engine(suite, context)
        with drivers.directories(folder), running(suite):
            say("all containers are healthy, with the profiles of the drivers")
            asyncio.run(_on_drivers(suite, published, repository))


async def _on_drivers(suite: Suite, published: Published, repository: Path) -> None:
    async with Client(published.grpc, published.token, patience=120.0) as cove:
        await drivers.drive_drivers(cove, suite, repository)


def _repository(folder: Path) -> Path:
    """A bare repository with one commit, owned by a user like any other."""
    bare, work = folder / "app.git", folder / "work"
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    commands: list[list[str | Path]] = [
        ["git", "init", "-q", "-b", "main", work],
        ["git", "-C", work, *author, "commit", "-q", "--allow-empty", "-m", "First"],
        ["git", "clone", "-q", "--bare", work, bare],
        ["chown", "-R", "1000:1000", bare],
    ]
    for argv in commands:
        subprocess.run(argv, check=True)
    shutil.rmtree(work)
    return bare


def _port() -> int:
    """One that is free in our network namespace, where nobody else takes any."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
