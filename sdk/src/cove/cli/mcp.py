"""`cove mcp`: serves coding agents, over its standard streams or HTTP."""

import argparse
import asyncio
import json
import os
import secrets
import signal
from typing import TYPE_CHECKING, Any, Final

from cove.cli.console import Console
from cove.cli.errors import Failure, UsageError

if TYPE_CHECKING:
    from mcp.server import Server

    from cove.mcp import http

TOKEN: Final = "COVE_MCP_TOKEN"  # noqa: S105 - the name of a variable.
SHORTEST_TOKEN: Final = 16


def serve(options: argparse.Namespace, console: Console) -> int:
    """Serve until the client closes the streams, or a signal comes."""
    try:
        from cove.mcp import server
        from cove.mcp.remotes import HOSTS, PASSWORD, Remotes
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cove"):
            raise
        raise Failure(
            f"cove mcp needs the package {error.name}", "pip install 'cove[mcp]'"
        ) from None
    remotes = Remotes.of(os.environ)
    if remotes.idle:
        console.note(f"warning: {PASSWORD} is sent to nobody: {HOSTS} names no host")
    gateway = server.Gateway(address=options.address, state=options.state, remotes=remotes)
    made = server.make(gateway)
    if options.http is not None:
        return _serve_http(made, options.http, console)
    # What reads the standard input cannot be woken up: Ctrl-C ends the process, as SIGTERM does.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(server.serve(made))
    return 0


def _serve_http(made: "Server[Any]", where: str, console: Console) -> int:
    from cove.mcp import http

    try:
        address = http.Address.parse(where)
    except ValueError as error:
        raise UsageError(str(error), "Say HOST:PORT, for example 127.0.0.1:7422.") from None
    token = _token(address)
    told = {} if TOKEN in os.environ else {"token": token}

    def ready(url: str) -> None:
        console.line(json.dumps({"mcp": url, **told}))

    try:
        asyncio.run(http.serve(made, address, token, ready))
    except OSError as error:
        raise Failure(
            f"{where}: {error.strerror or error}", "Choose another address; port 0 is a free one."
        ) from None
    return 0


def _token(address: "http.Address") -> str:
    """What callers show: the operator's, or on loopback one that is made for this run."""
    given = os.environ.get(TOKEN)
    if given is None and address.is_loopback:
        return secrets.token_urlsafe()
    if given is None or len(given.strip()) < SHORTEST_TOKEN:
        raise UsageError(
            f"{TOKEN} is not set" if given is None else f"{TOKEN} is too short",
            f"Whoever may call this server runs commands: set {TOKEN} to at least "
            f"{SHORTEST_TOKEN} characters that nobody guesses.",
        )
    return given.strip()
