"""`cove token share`."""

from cove.cli.commands.arguments import FOLLOWED, lifetime, workspace
from cove.cli.parser import SERVER, Commands, Parser


def add(commands: Commands) -> None:
    """Add the sub-commands of this module."""
    token = commands.add(
        "token",
        "tokens:token",
        "make, list and revoke tokens of the tenant",
        description="Make a token by which a caller is known, and print its secret, which cannot "
        "be had again; list those that are valid; end some for good, on every gateway within 5 "
        "seconds.",
        group=SERVER,
        examples=[
            ("for a bot, 30 days", "cove token create --role writer --ttl 30d --id ci"),
            ("which there are", "cove token ls"),
            ("end it", "cove token revoke ci"),
        ],
        status=FOLLOWED,
    )
    option = token.add_argument
    option("action", choices=("create", "ls", "revoke"))
    option("ids", nargs="*", metavar="ID", help="of those that are to be revoked")
    option(
        "--role",
        choices=("reader", "writer", "admin"),
        default="writer",
        help="what a new one may do (writer)",
    )
    option("--id", default="", metavar="ID", help="of a new one; else one is made")
    _common(token)
    option("--all", action="store_true", help="list also what was revoked or has expired")
    share = commands.add(
        "share",
        "tokens:share",
        "make a token for one workspace alone",
        description="Make a token that reaches one workspace and nothing else, and print its "
        "secret. It only reads unless told otherwise, and ends with the workspace.",
        group=SERVER,
        examples=[
            ("to look on, for a day", "cove share demo --ttl 1d"),
            ("to work in it", "cove share demo --write"),
        ],
        status=FOLLOWED,
    )
    workspace(share)
    share.add_argument("--write", action="store_true", help="may change files and run commands")
    _common(share)


def _common(parser: Parser) -> None:
    option = parser.add_argument
    option("--ttl", type=lifetime, metavar="TIME", help="how long it is valid, as 12h or 30d")
    option("--description", default="", metavar="TEXT", help="what it is for, or who has it")
