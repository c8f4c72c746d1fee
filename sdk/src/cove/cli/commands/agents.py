"""`cove mcp`."""

from typing import Final

from cove.cli.parser import SERVER, Commands

_HTTP: Final = "127.0.0.1:7422"


def add(commands: Commands) -> None:
    """Add the sub-command of this module."""
    mcp = commands.add_local(
        "mcp",
        "mcp:serve",
        "serve coding agents by the Model Context Protocol",
        description="Serve workspaces as tools to a coding agent, which starts this by its "
        "configuration and talks to it over the standard streams. A password for https remotes "
        "is taken from COVE_REMOTE_USERNAME and COVE_REMOTE_PASSWORD, and sent to the hosts in "
        "COVE_REMOTE_HOSTS only.\n\n"
        "With --http it serves streamable HTTP to whoever shows the token in COVE_MCP_TOKEN. One "
        "line of JSON says where; it holds a token made for this run if there was none, which is "
        "for loopback only.",
        group=SERVER,
        parents=[commands.common],
        examples=[
            ("what an agent's configuration says", "cove mcp"),
            ("over HTTP, on a free port", "cove mcp --http 127.0.0.1:0"),
        ],
        status="0 when the agent closes the streams, or after SIGTERM or Ctrl-C over HTTP; 1 when "
        "it cannot start, 2 for a wrong command line.",
    )
    mcp.add_argument(
        "--http",
        nargs="?",
        const=_HTTP,
        metavar="HOST:PORT",
        help=f"serve streamable HTTP there; {_HTTP} if that is left out",
    )
