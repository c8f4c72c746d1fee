"""`cove top quota audit`."""

from argparse import ArgumentTypeError

from cove.cli.commands.arguments import FOLLOWED, seconds, size
from cove.cli.parser import SERVER, Commands


def add(commands: Commands) -> None:
    """Add the sub-commands of this module."""
    top = commands.add(
        "top",
        "top:top",
        "show what runs now, and what it uses",
        description="Show the tenant's workspaces by what they use: processors, memory, processes, "
        "and the commands that run in them; again and again, until Ctrl-C. At a terminal that "
        "fills the screen; elsewhere it is a table for each look, with --json an object for each. "
        "Nothing is started for it.\n\n"
        "It calls ListWorkspaces, ListExecutions and GetQuota, and follows WatchUsage of 200 "
        "workspaces at most: a role that may read is enough.",
        group=SERVER,
        examples=[
            ("watch what goes on", "cove top"),
            ("what runs now, for a program", "cove top --once --json"),
        ],
        status="0 with --once, 130 after Ctrl-C, 1 when a call failed, 2 for a wrong command line.",
    )
    top.add_argument("--once", action="store_true", help="look once, and end")
    top.add_argument(
        "-i",
        "--interval",
        type=_interval,
        default=2.0,
        metavar="TIME",
        help="between two looks, 1s to 60s (2s)",
    )
    quota = commands.add(
        "quota",
        "tenant:quota",
        "show or set what the tenant may have",
        description="Show what the tenant may have and has, or set it. A limit of 0 is the "
        "operator's default, -1 is none. One below what is used takes nothing away.",
        group=SERVER,
        examples=[
            ("what is used", "cove quota"),
            ("20 workspaces, 10 GiB", "cove quota set --workspaces 20 --disk 10G"),
        ],
        status=FOLLOWED,
    )
    quota.add_argument("action", nargs="?", choices=("show", "set"), default="show")
    for flag, name, says in (
        ("--workspaces", "workspaces", "workspaces that are not deleted"),
        ("--active", "active_environments", "sandboxes that run at one time"),
        ("--executions", "executions", "commands that run at one time"),
    ):
        quota.add_argument(flag, dest=name, type=int, metavar="N", help=says)
    quota.add_argument(
        "--disk", dest="disk_bytes", type=_size, metavar="SIZE", help="bytes on disk, as 10G"
    )
    audit = commands.add(
        "audit",
        "tenant:audit",
        "show who did what",
        description="Show the audit log of the tenant: every call that changed something or was "
        "refused, the latest first. It has nothing of what was written or run.",
        group=SERVER,
        examples=[
            ("what was done to a workspace", "cove audit --resource workspaces/demo"),
            ("who was refused in the last hour", "cove audit --since 1h --code UNAUTHENTICATED"),
        ],
        status=FOLLOWED,
    )
    option = audit.add_argument
    option("--since", type=seconds, metavar="TIME", help="not older than, as 30m or 2h")
    option("--principal", default="", metavar="NAME", help="only of this caller")
    option("--resource", default="", metavar="NAME", help="only this, and what belongs to it")
    option("--action", default="", metavar="RPC", help="only this RPC, as CreateWorkspace")
    option("--code", default="", metavar="CODE", help="only what ended so, as OK")
    option("--limit", type=int, default=100, metavar="N", help="at most so many (100)")


def _interval(text: str) -> float:
    found = seconds(text)
    if not 1 <= found <= 60:
        raise ArgumentTypeError("not from 1s to 60s")
    return found


def _size(text: str) -> int:
    return -1 if text == "-1" else size(text)
