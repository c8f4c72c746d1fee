"""The verbs of `cove admin`, and what they print."""

import argparse
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent import overlay
from cove.cli.console import Console
from cove_server.admin import backup, restore
from cove_server.admin.database import registry_of
from cove_server.admin.errors import Refused
from cove_server.places import Places
from servicekit.config import ConfigError, StartError

CANNOT: Final = 2


def make_backup(options: argparse.Namespace, env: Mapping[str, str]) -> int:
    console = _console(options)
    _reach_all()
    places = Places.choose(env, options.state, options.runtime)
    try:
        registry = registry_of(places, env)
        manifest = backup.backup(
            backup.Asked(
                state=places.state,
                registry=registry,
                target=options.target,
                registry_only=options.registry,
            )
        )
    except (Refused, ConfigError, StartError, OSError) as error:
        return _trouble(console, error)
    if options.json:
        console.json(manifest)
    else:
        console.line(f"{manifest['file']}: {manifest['environments']} workspaces")
    for told in manifest["left_out_first"]:
        console.note(f"left out: {told}")
    if manifest["left_out"] > len(manifest["left_out_first"]):
        console.note(f"left out: {manifest['left_out']} in all")
    return 0


def restore_backup(options: argparse.Namespace, env: Mapping[str, str]) -> int:
    console = _console(options)
    _reach_all()
    places = Places.choose(env, options.state, options.runtime)
    try:
        done = restore.restore(
            restore.Asked(
                source=options.source,
                places=places,
                registry=registry_of(places, env),
                replace=options.replace,
            )
        )
    except (Refused, ConfigError, StartError, OSError) as error:
        return _trouble(console, error)
    if options.json:
        console.json(done)
        return 0
    console.line(f"{done['state']}: {done['environments']} workspaces")
    if done["replaced"]:
        console.line(f"what was there: {done['replaced']}")
    return 0


def _console(options: argparse.Namespace) -> Console:
    logging.basicConfig(handlers=[logging.NullHandler()])
    console = Console.standard()
    console.as_json = options.json
    return console


def _reach_all() -> None:
    """Be able to read what commands in sandboxes have closed even to us, who own it."""
    if os.geteuid() != 0:
        with suppress(OSError):  # Then that is left out, and told.
            overlay.enter_namespace()


def _trouble(console: Console, error: Exception) -> int:
    remedy = error.remedy if isinstance(error, Refused) else ""
    path = Path(error.filename).name if isinstance(error, OSError) and error.filename else ""
    words = f"{error.strerror}: {path}" if isinstance(error, OSError) and path else str(error)
    console.trouble(words, remedy)
    return CANNOT
