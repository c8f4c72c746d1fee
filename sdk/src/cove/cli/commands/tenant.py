"""`cove quota audit`."""

from cove.cli.commands.arguments import FOLLOWED, seconds, size
from cove.cli.parser import SERVER, Commands


def add(commands: Commands) -> None:
    """Add the sub-commands of this module."""
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


def _size(text: str) -> int:
    return -1 if text == "-1" else size(text)
