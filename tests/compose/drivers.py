"""Workspaces on every driver of the compose files: beside the node's own sandboxes, containers of
the same engine, and a double of a Dagger engine.

Images of Dagger are in no registry that every machine reaches: what is proven of that profile is
what is ours, its image, its rights and where its files are.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cove.client import Client
from tests.compose.daemon import Suite, image
from tests.compose.machine import ROOT, say

OPTIONS: Final = (
    *("-f", "docker-compose.yml", "-f", "docker-compose.docker.yml"),
    *("-f", "double/docker-compose.yml", "--profile", "dagger"),
)
ENV: Final = {
    "COVE_DRIVERS": "local,docker,dagger",
    "COVE_DAGGER_NETWORK": "none",
    "COVE_DAGGER_IMAGE": "base",
    "COVE_DOCKER_IMAGE": image("COVE_BASE"),
}
_ENGINE: Final = "registry.dagger.io/engine:v0.21.11"
_NODE: Final = ("/var/lib/cove", "/run/cove")
_ORIGIN: Final = "file:///srv/repositories/app.git"


@contextmanager
def directories(folder: Path) -> Iterator[None]:
    """The directories that the containers share with the engine, in our own mounts alone."""
    made = [Path(each) for each in _NODE if not Path(each).exists()]
    for each in _NODE:
        Path(each).mkdir(parents=True, exist_ok=True)
        own = folder / each.replace("/", "-")
        own.mkdir(mode=0o700)
        subprocess.run(["mount", "--bind", own, each], check=True)
    try:
        yield
    finally:
        for each in _NODE:
            subprocess.run(["umount", "--recursive", each], check=True)
        for path in made:
            path.rmdir()


def make_engine(suite: Suite, context: Path) -> None:
    """The image that the profile names, of the double. Its CLI is a program without packages."""
    double = context / "double"
    shutil.copytree(context / "deploy/wheels", double / "wheels")
    for name in ("tests/drivers/dagger_double", "tests/support"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, double / name, ignore=ignored)
    for name in ("tests", "tests/drivers"):
        (double / name / "__init__.py").touch()
    program = (ROOT / "tests/drivers/dagger_double/cli.py").read_text()
    cli = double / "dagger"
    cli.write_text(f"#!/usr/bin/env python3\n{program}\nsys.exit(session())\n")
    cli.chmod(0o755)
    base = f"BASE={image('COVE_BASE')}"
    suite.docker("build", "--network", "none", "-t", _ENGINE, "--build-arg", base, str(double))


async def drive_drivers(cove: Client, suite: Suite, repository: Path) -> None:
    """Create, execute, commit, push on each. Raises `AssertionError` where it does not hold."""
    found = await cove.capabilities()
    assert {each.driver: each.remedy for each in found.drivers} == dict.fromkeys(
        ENV["COVE_DRIVERS"].split(","), ""
    )
    for driver in ("docker", "dagger"):
        setup = [f"echo {driver} > /set-up"]
        await _work(cove, driver, repository, setup=setup)
        say(f"{driver}: setup, execute, files, status, commit, push: as told")
    names = suite.docker("ps", "-a", "--format", "{{.Names}}").split()
    assert not [each for each in names if each.startswith(("cove-setup", "cove-0"))], names


async def _work(cove: Client, driver: str, repository: Path, **spec: Any) -> None:
    workspace = await cove.workspaces.create(_ORIGIN, id=f"on-{driver}", driver=driver, **spec)
    ran = await workspace.execute(script="id -u; cat /set-up; echo made > new.txt")
    assert ran.check().text == f"60900\n{driver}\n", ran
    await workspace.write("written.txt", b"from outside\n")
    assert (await workspace.execute("cat", "written.txt")).text == "from outside\n"
    assert [each.path for each in (await workspace.status()).entries] == ["new.txt", "written.txt"]
    await workspace.commit(f"On {driver}", author=("Ada", "ada@example.org"))
    await workspace.push()
    argv = ["git", "-c", "safe.directory=*", "-C", str(repository), "log", "--format=%s"]
    log = subprocess.run([*argv, f"cove/on-{driver}"], capture_output=True, text=True, check=True)
    assert log.stdout.splitlines()[0] == f"On {driver}", log
    await workspace.delete()
    assert [each.id async for each in cove.workspaces.list()] == []
