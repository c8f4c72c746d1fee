"""`cove admin check`: what it prints, and its exit status."""

import argparse
import asyncio
import fcntl
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from cove.cli.console import Console
from cove_server.admin.database import Registry, registry_of
from cove_server.admin.errors import Refused
from cove_server.admin.restore import answers
from cove_server.check.finding import Finding
from cove_server.check.look import Asked, Mended, look, mend
from cove_server.errors import CannotStart
from cove_server.places import Places
from servicekit.config import ConfigError, StartError
from services.git.cell import Cells
from services.git.mending import HOMES
from services.provider.config import Config

FOUND: Final = 1
CANNOT: Final = 2
_SERVICES: Final = ("registry", "git", "provider", "executor", "gateway")
_STOP: Final = "End `cove up` first: what it does meanwhile would be mended too."


def check_state(options: argparse.Namespace, env: Mapping[str, str]) -> int:
    """0: nothing was found; 1: something was, mended or not; 2: it could not be looked."""
    logging.basicConfig(handlers=[logging.NullHandler()])
    console = Console.standard()
    console.as_json = options.json
    places = Places.choose(env, options.state, options.runtime)
    own = {**env, "COVE_STATE": str(places.state), "COVE_RUNTIME": str(places.runtime)}
    try:
        if not places.state.is_dir():
            raise Refused(f"{places.state} is not there", "Name the state directory with --state.")
        with ExitStack() as stack:
            registry = registry_of(places, own)
            if options.repair:
                stack.enter_context(places.held(take_over=1))
                _check_alone(places, registry)
            found = asyncio.run(_run(options, places, registry, own))
    except CannotStart as error:
        console.trouble(str(error), _STOP)
        return CANNOT
    except (Refused, ConfigError, StartError, OSError) as error:
        console.trouble(str(error), error.remedy if isinstance(error, Refused) else "")
        return CANNOT
    if options.json:
        console.json({"findings": [_as_json(each) for each in found]})
    else:
        _show(found, console)
    return FOUND if found else 0


async def _run(
    options: argparse.Namespace, places: Places, registry: Registry, env: Mapping[str, str]
) -> Sequence[Mended]:
    git = places.state / "git"
    async with Cells([git / name for name in HOMES]) as cells:
        asked = Asked(
            places=places,
            registry=registry,
            provider=Config.from_env(env),
            cells=cells,
            deep=options.deep,
            running=not options.repair and _runs(places.state),
        )
        if options.repair:
            return await mend(asked)
        return [Mended(each) for each in await look(asked)]


def _check_alone(places: Places, registry: Registry) -> None:
    """Raises `Refused` while services run that `cove up` did not start, here or on the database."""
    running = [name for name in _SERVICES if answers(places.socket(name))]
    if running:
        raise Refused(f"{', '.join(running)} of the node runs", "Stop all services first.")
    if registry.in_use():
        raise Refused("a registry runs on the database", "Stop all that use it first.")


def _runs(state: Path) -> bool:
    """Whether somebody has the state directory: `cove up`, or services that it left."""
    for name in ("up.lock", "services.lock"):
        try:
            descriptor = os.open(state / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _show(found: Sequence[Mended], console: Console) -> None:
    for each in found:
        finding = each.finding
        console.line(f"{finding.kind}: {finding.subject}: {finding.found}")
        if said := _outcome(each):
            console.line(f"  {said}")
    if not found:
        console.line("registry and disk agree")
        return
    mended = sum(bool(each.done) for each in found)
    console.line(f"{len(found)} found, {mended} mended")


def _outcome(each: Mended) -> str:
    if each.done:
        return f"mended: {each.done}"
    if each.problem:
        return f"not mended: {each.problem}"
    return f"remedy: {_remedy(each.finding)}"


def _remedy(finding: Finding) -> str:
    return finding.remedy if finding.mend is None else "cove admin check --repair"


def _as_json(each: Mended) -> dict[str, Any]:
    return {
        "kind": each.finding.kind,
        "subject": each.finding.subject,
        "found": each.finding.found,
        "mendable": each.finding.mend is not None,
        "mended": each.done or None,
        "problem": each.problem or None,
        "remedy": "" if each.done else _remedy(each.finding),
    }
