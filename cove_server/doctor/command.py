"""`cove doctor`: what this host can do for workspaces, and what gives what is missing."""

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from cove.cli.console import Console
from cove_server.doctor import host, places, sandbox
from cove_server.doctor.finding import Finding, Level, fail
from cove_server.doctor.suite import suite
from cove_server.places import Places

_COLOURS: Final[Mapping[Level, str]] = {Level.OK: "32", Level.WARN: "33", Level.FAIL: "31"}
_REPORT: Final = "This is a fault of Cove's own: please report it."


def run(options: argparse.Namespace, addresses: Mapping[str, str]) -> int:
    """Look, tell, and return 0 when workspaces can be made. `addresses` are those of `cove up`."""
    logging.basicConfig(handlers=[logging.NullHandler()])  # The findings say it all.
    chosen = Places.choose(os.environ, options.state, options.runtime)
    findings = asyncio.run(_look(chosen, addresses, os.environ))
    console = Console.standard()
    console.as_json = options.json
    possible = all(each.level is not Level.FAIL for each in findings)
    if options.json:
        console.json({"workspaces": possible, "checks": [_as_json(each) for each in findings]})
    else:
        _show(findings, console)
        problems = sum(each.level is Level.FAIL for each in findings)
        console.line()
        console.line(
            "workspaces can be made here"
            if possible
            else f"no workspace can be made here: {problems} of {len(findings)} checks failed"
        )
    return 0 if possible else 1


async def _look(
    chosen: Places, addresses: Mapping[str, str], env: Mapping[str, str]
) -> list[Finding]:
    looking = asyncio.current_task()
    assert looking
    for number in (signal.SIGTERM, signal.SIGHUP):  # So that what was started is ended.
        asyncio.get_running_loop().add_signal_handler(number, looking.cancel)
    found: list[Finding] = []
    for check in (host.python, host.bubblewrap, host.namespaces, host.overlay):
        found += _guarded(check.__name__, partial(_one, check))
    found += _guarded("groups", host.groups)
    tried = await asyncio.gather(
        sandbox.sandbox(chosen, env), sandbox.git(), suite(chosen), return_exceptions=True
    )
    made, git, running = tried
    found += [_broken("sandbox", made)] if isinstance(made, BaseException) else made
    found.append(_broken("git", git) if isinstance(git, BaseException) else git)
    found += _guarded("ssh", partial(_one, host.ssh))
    found += _guarded("state", partial(places.state, chosen))
    found += _guarded("sockets", partial(_one, partial(places.sockets, chosen)))
    if isinstance(running, BaseException):
        found.append(_broken("suite", running))
    else:
        told, runs = running
        found.append(told)
        if not runs:
            found += _guarded("ports", partial(places.ports, addresses))
    found += _guarded("clock", partial(_one, host.clock))
    return found


def _one(check: Callable[[], Finding]) -> list[Finding]:
    return [check()]


def _guarded(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """One look that goes wrong is told, and the others go on."""
    try:
        return [*check()]
    except Exception as error:
        return [_broken(name, error)]


def _broken(name: str, error: BaseException) -> Finding:
    return fail(name, f"{type(error).__name__}: {error}", _REPORT)


def _show(findings: list[Finding], console: Console) -> None:
    width = max(len(each.check) for each in findings) + 3
    for each in findings:
        level = f"{each.level:<6}"
        if console.has_colours:
            level = f"\x1b[{_COLOURS[each.level]}m{level}\x1b[m"
        console.line(f"{level}{each.check:<{width}}{each.found}")
        if each.remedy:
            console.line(f"{'':<{width + 6}}remedy: {each.remedy}")


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "level": str(finding.level),
        "found": finding.found,
        "remedy": finding.remedy,
    }
